"""Throughput of the groups of meaning, and against all pairs by math-verify: one run.

    python perf/grouping.py

17,000 made-up prompts of 8 answers as a mathematics model gives them (60 % whole numbers, else
fractions, decimals, roots, multiples of pi, tuples, intervals, polynomials, each in several
spellings; of the 8 a varying share is right). The comparison with all pairs is on the first
prompts of the same sample, one core each. Exits with 1 if a bar is missed.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from recipe.judge.equivalence import Equivalence, group

SECONDS_BAR, RATIO_BAR = 180, 20


def spellings(rng: random.Random) -> tuple[list[str], list[list[str]]]:
    """Ways to write one value, and other values near it, each in its ways."""
    kind = rng.random()
    a, b = rng.randint(2, 99), rng.randint(2, 19)

    def whole(n):
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
        return whole(n), [whole(n + d) for d in (1, -1, 7, 100)]
    if kind < 0.7:
        d = 2 * b + 1
        return fraction(a, d), [fraction(a + 1, d), fraction(a, d + 2), whole(a)]
    make = rng.choice([root, pair, interval, polynomial, lambda n, m: pi(n * m)])
    m = rng.choice([2, 3, 5, 7])
    return make(a, m), [make(a + 1, m), make(a, m + 4), whole(a)]


def sample(prompts: int, responses: int = 8) -> list[list[str]]:
    rng = random.Random(0)
    answers = []
    for _ in range(prompts):
        right, wrong = spellings(rng)
        share = rng.random()
        answers.append(
            [
                rng.choice(right if rng.random() < share else rng.choice(wrong))
                for _ in range(responses)
            ]
        )
    return answers


def ours(answers: list[list[str]], workers: int) -> list[list[int]]:
    same = Equivalence(children=workers)
    with ThreadPoolExecutor(workers) as pool:
        groups = pool.map(lambda a: group(a, same.read, same.same), answers)
        return [found.index for found in groups]


def all_pairs(answers: list[list[str]]) -> list[list[int]]:
    """What one writes first: every two answers of a prompt parsed and verified."""
    from math_verify import parse, verify

    found = []
    for prompt in answers:
        index = list(range(len(prompt)))
        for i, j in itertools.combinations(range(len(prompt)), 2):
            one, other = (parse(f"\\boxed{{{prompt[k]}}}") for k in (i, j))
            if verify(one, other) or verify(other, one):
                old, new = index[j], index[i]
                index = [new if k == old else k for k in index]
        numbers: dict[int, int] = {}
        found.append([numbers.setdefault(k, len(numbers)) for k in index])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=17_000)
    parser.add_argument("--pairs-prompts", type=int, default=150)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    known = parser.parse_args()
    answers = sample(known.prompts)
    ours(answers[:2], known.workers)  # the children start
    part = answers[: known.pairs_prompts]
    all_pairs(answers[-2:])  # math-verify imports its parsers
    start = time.perf_counter()
    theirs = all_pairs(part)
    pairs_seconds = time.perf_counter() - start
    start = time.perf_counter()
    mine = ours(part, 1)
    one_core = time.perf_counter() - start
    different = [i for i in range(len(part)) if mine[i] != theirs[i]]
    print(
        f"{len(part)} prompts: all pairs {pairs_seconds:.1f} s, groups {one_core:.2f} s, "
        f"{pairs_seconds / one_core:.0f} times as fast; {len(different)} prompts grouped otherwise"
    )
    for i in different[:5]:
        print(f"  {part[i]}: {mine[i]}, all pairs {theirs[i]}")
    seconds = {}
    for prompts in (known.prompts // 4, known.prompts // 2, known.prompts):
        start = time.perf_counter()
        ours(sample(known.prompts)[-prompts:], known.workers)
        seconds[prompts] = time.perf_counter() - start
        print(
            f"{prompts} prompts, {known.workers} cores: {seconds[prompts]:.1f} s, "
            f"{1e3 * seconds[prompts] / prompts:.2f} ms a prompt"
        )
    met = (
        seconds[known.prompts] < SECONDS_BAR
        and pairs_seconds / one_core >= RATIO_BAR
        and not different
    )
    print("all bars met" if met else "a bar is missed")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
