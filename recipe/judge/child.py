"""The process in which math-verify runs for `recipe.judge`: one JSON line in, one JSON line out.

Request {"gold": str, "answer": str}; reply {"equal": bool, "parsed": bool, "seconds": float}
(`parsed`: math-verify made an expression of the answer; seconds of CPU time). The first line out is
{"ready": true} or {"error": str}.

A judge that cannot hang: before each request the kernel is told to end this process after
`time_limit` seconds of CPU, and after `wall_limit` seconds in any case. No Python code has to run
for that, so it holds inside a single long big-integer operation and after the parent is gone.
An idle child ends when its input does, which is when the parent does.

Usage: child.py TIME_LIMIT WALL_LIMIT MEMORY_MB
"""

import dataclasses
import json
import logging
import os
import resource
import signal
import sys
import time


def parser():
    """Returns a function that parses one expression with math-verify, all of it or nothing.

    By default math-verify removes what it takes for units, such as `+ a` of `|5 + a|`, and reads a
    number out of what is no LaTeX then.
    """
    from math_verify import LatexExtractionConfig, parse

    as_written = dataclasses.replace(
        LatexExtractionConfig().normalization_config,
        basic_latex=True,
        units=False,
        malformed_operators=False,
        nits=False,
        boxed="all",
        equations=False,
    )
    config = LatexExtractionConfig(boxed_match_priority=0, normalization_config=as_written)
    return lambda text: parse(
        f"\\boxed{{{text}}}",
        extraction_config=[config],
        fallback_mode="no_fallback",
        parsing_timeout=None,
    )


def same_size(gold, answer):
    """Says whether two numbers agree relative to their size: math-verify rounds them to six
    places, where all tiny numbers are 0."""
    numbers = [
        next((x for x in parsed if getattr(x, "is_number", False)), None)
        for parsed in (gold, answer)
    ]
    if None in numbers:
        return True
    # doit: \gcd(12, 18) is left as it is
    first, second = (number.doit().evalf(30) for number in numbers)
    size = max(abs(first), abs(second))
    return first == second or bool(abs(first - second) <= 2e-6 * size)


def replies(parse, verify, lines):
    """Yields the reply to each request line. math-verify's own time limits are off: they are
    signals that Python code must handle."""
    for line in lines:
        begin, request, answer, equal = time.process_time(), json.loads(line), [], False
        try:
            gold, answer = (parse(request[key]) for key in ("gold", "answer"))
            equal = verify(gold, answer, timeout_seconds=None) and same_size(gold, answer)
        except MemoryError:
            raise  # the limit
        except Exception:  # of a library, which has no verdict on this pair
            equal = False
        parsed = any(not isinstance(a, str) for a in answer)
        yield {"equal": bool(equal), "parsed": parsed, "seconds": time.process_time() - begin}


def main(time_limit: float, wall_limit: float, memory_mb: int) -> None:
    def limit(cpu: float, wall: float) -> None:
        signal.setitimer(signal.ITIMER_PROF, cpu)
        signal.setitimer(signal.ITIMER_REAL, wall)

    def requests():
        for line in sys.stdin:
            limit(time_limit, wall_limit)
            yield line

    def send(reply: dict) -> None:
        limit(0, 0)
        out.write(json.dumps(reply) + "\n")
        out.flush()

    ends = {signal.SIGPROF, signal.SIGALRM}
    for number in ends:  # a parent may have had them ignored or blocked, which is inherited
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not look like a reply
    folder = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if os.path.abspath(path) != folder]
    logging.disable(logging.CRITICAL)
    try:
        from math_verify import verify

        parse = parser()
    except (ImportError, MemoryError) as error:
        send({"error": f"{type(error).__name__}: {error}"})
        return
    # math-verify imports its parsers when first used, which is not part of an answer's time
    list(replies(parse, verify, [json.dumps({"gold": "x=1", "answer": "\\frac{1}{2}"})]))
    send({"ready": True})
    for reply in replies(parse, verify, requests()):
        send(reply)


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
