"""Throughput of the clusters of equivalent answers, and against all pairs by math-verify: one run.

    python perf/grouping.py

17,000 made-up prompts of 8 answers as a mathematics model gives them (60 % integers, else
fractions, decimals, roots, multiples of pi, tuples, intervals, polynomials, each in several
spellings; of the 8 a varying share is correct). The comparison with all pairs is on the first
prompts of the same sample, one core each. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from recipe.judge.equivalence import Equivalence, cluster
from recipe.machine.cpus import usable_cpus

SECONDS_BAR, RATIO_BAR = 180, 20


def spellings(rng: random.Random) -> tuple[list[str], list[list[str]]]:
    """Ways to write one value, and other values near it, each in its ways."""
    kind = rng.random()
    a, b = rng.randint(2, 99), rng.randint(2, 19)

    def integer(n):
        return [str(n), f"{n}.0", f"x={n}", f"{n:,}"]

    def fraction(n, d):
        return [rf"\frac{{{n}}}{{{d}}}", f"{n}/{d}", rf"\dfrac{{{n}}}{{{d}}}"]

    def root(n, m):
        return [rf"{n}\sqrt{{{m}}}", rf"{n} \cdot \sqrt{{{m}}}", rf"\sqrt{{{n * n * m}}}"]

    def pi(n):
        return [rf"{n}\pi", rf"{n} \pi", rf"\pi \cdot {n}"]

    def pair(n, m):
        return [f"({n}, {m})", f"({n},{m})", rf"\left({n}, {m}\right)"]

    def interval(n, m):
        return [f"[{n}, {n + m})", rf"\left[{n}, {n + m}\right)"]

    def polynomial(n, m):
        return [f"x^2+{n}x+{m}", f"{m}+{n}x+x^2", f"x^{{2}} + {n}x + {m}"]

    if kind < 0.6:
        n = rng.randint(0, 2000)
        return integer(n), [integer(n + d) for d in (1, -1, 7, 100)]
    if kind < 0.7:
        d = 2 * b + 1
        return fraction(a, d), [fraction(a + 1, d), fraction(a, d + 2), integer(a)]
    make = rng.choice([root, pair, interval, polynomial, lambda n, m: pi(n * m)])
    m = rng.choice([2, 3, 5, 7])
    return make(a, m), [make(a + 1, m), make(a, m + 4), integer(a)]


def sample(prompts: int, responses: int = 8) -> list[list[str]]:
    rng = random.Random(0)
    answers = []
    for _ in range(prompts):
        correct, incorrect = spellings(rng)
        share = rng.random()
        answers.append(
            [
                rng.choice(correct if rng.random() < share else rng.choice(incorrect))
                for _ in range(responses)
            ]
        )
    return answers


def clusters(answers: list[list[str]], workers: int) -> list[list[int]]:
    """The clusters of each prompt's answers, by `recipe.judge.equivalence`."""
    rules = Equivalence(children=workers)
    with ThreadPoolExecutor(workers) as pool:
        results = pool.map(lambda a: cluster(a, rules.read, rules.equivalent), answers)
        return [result.labels for result in results]


def all_pairs(answers: list[list[str]]) -> list[list[int]]:
    """What one writes first: every two answers of a prompt parsed and verified."""
    from math_verify import parse, verify

    labels = []
    for prompt in answers:
        index = list(range(len(prompt)))
        for i, j in itertools.combinations(range(len(prompt)), 2):
            a, b = (parse(f"\\boxed{{{prompt[k]}}}") for k in (i, j))
            if verify(a, b) or verify(b, a):
                old, new = index[j], index[i]
                index = [new if k == old else k for k in index]
        numbers: dict[int, int] = {}
        labels.append([numbers.setdefault(k, len(numbers)) for k in index])
    return labels


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=17_000)
    parser.add_argument("--pairs-prompts", type=int, default=150)
    parser.add_argument("--workers", type=int, default=usable_cpus())
    args = parser.parse_args()
    answers = sample(args.prompts)
    clusters(answers[:2], args.workers)  # the children start
    part = answers[: args.pairs_prompts]
    all_pairs(answers[-2:])  # math-verify imports its parsers
    start = time.perf_counter()
    expected = all_pairs(part)
    pairs_seconds = time.perf_counter() - start
    start = time.perf_counter()
    labels = clusters(part, 1)
    one_core = time.perf_counter() - start
    different = [i for i in range(len(part)) if labels[i] != expected[i]]
    print(
        f"{len(part)} prompts: all pairs {pairs_seconds:.1f} s, clusters {one_core:.2f} s, "
        f"{pairs_seconds / one_core:.0f} times as fast; "
        f"{len(different)} prompts clustered otherwise"
    )
    for i in different[:5]:
        print(f"  {part[i]}: {labels[i]}, all pairs {expected[i]}")
    seconds = {}
    for prompts in (args.prompts // 4, args.prompts // 2, args.prompts):
        start = time.perf_counter()
        clusters(sample(args.prompts)[-prompts:], args.workers)
        seconds[prompts] = time.perf_counter() - start
        print(
            f"{prompts} prompts, {args.workers} cores: {seconds[prompts]:.1f} s, "
            f"{1e3 * seconds[prompts] / prompts:.2f} ms per prompt"
        )
    met = (
        seconds[args.prompts] < SECONDS_BAR
        and pairs_seconds / one_core >= RATIO_BAR
        and not different
    )
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
