"""A reward function by which half of all responses are correct, so that groups are mixed: the small
model of these tests solves 4 %."""

import hashlib


def compute_score(solution_str: str, **_: object) -> float:
    return float(hashlib.sha256(solution_str.encode()).digest()[0] % 2)
