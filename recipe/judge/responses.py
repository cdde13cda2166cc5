"""All responses to a prompt, judged together: which are correct, and the clusters of their answers.

What evaluation (majority@n) and semantic entropy share. With a reward function of a run's own
(`Grading.reward`) that one says which are correct, and answers that are spelled alike are a
cluster: what it returns as `pred`, or the responses' own texts.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from recipe.judge.equivalence import Equivalence, cluster
from recipe.judge.reward import compute_score, extract_answer
from recipe.judge.reward_function import RewardFunction


@dataclass(frozen=True)
class Grading:
    """How responses are judged and their answers clustered.

    Args:
        boxed_only: only an answer in a box counts.
        units, thousands: as in `equivalence.read`.
        unparsable: responses without an answer are one cluster ("one") or one each ("own").
        time_limit: seconds of CPU time for a verdict or a comparison.
        workers: prompts judged at a time, each with a child process of its own.
        reward: in place of `recipe.judge`, whose settings are the others, but for `unparsable`.
    """

    boxed_only: bool = False
    units: str = "ignore"
    thousands: bool = True
    unparsable: str = "one"
    time_limit: float = 5.0
    workers: int = 2
    reward: RewardFunction | None = None

    def equivalence(self) -> Equivalence:
        """Returns the comparison of two answers by these rules."""
        return Equivalence(self.units, self.thousands, self.time_limit, children=self.workers)


class Judged(NamedTuple):
    """The G responses to one prompt."""

    answers: list[str]  # of each response; "" where it has none
    correct: list[bool]  # of each response
    clusters: list[int]  # of equivalent answers; the cluster of each response
    majority: str  # answer of the largest cluster, in its most frequent spelling
    majority_correct: bool  # the verdict on that spelling
    timed_out: int  # comparisons and verdicts that a limit ended


def judge_prompt(
    texts: Sequence[str],
    ground_truth: str,
    row: Mapping[str, Any],
    grading: Grading,
    equivalence: Equivalence,
) -> Judged:
    """Judges the responses to one prompt, each distinct answer once.

    Of equally large clusters the one that came first is the majority; a cluster of blank answers is
    none, so that without any answer `majority` is "" and `majority_correct` False.

    Args:
        texts: the responses.
        ground_truth: as in `recipe.judge.compute_score`.
        row: data_source and extra_info of the data's row.
        grading: the rules.
        equivalence: `grading.equivalence()`, shared by all prompts: it remembers the answers that
            have timed out.
    """
    answers = [extract_answer(text, grading.boxed_only) for text in texts]
    examples: dict[str, str] = {}
    for answer, text in zip(answers, texts, strict=True):
        examples.setdefault(answer, text)
    data_source, extra_info = of_row(row)
    score = partial(
        compute_score,
        extra_info=extra_info,
        boxed_only=grading.boxed_only,
        time_limit=equivalence.time_limit,
        memory_mb=equivalence.memory_mb,
        children=equivalence.children,
    )
    verdicts = {answer: score(data_source, text, ground_truth) for answer, text in examples.items()}
    timed_out = [answer for answer, verdict in verdicts.items() if verdict["judge_timed_out"]]
    equivalence.timed_out_answers.update(equivalence.read(answer).text for answer in timed_out)
    clusters = cluster(answers, equivalence.read, equivalence.equivalent, grading.unparsable)
    majority = majority_of(clusters.labels, answers)
    return Judged(
        answers,
        [verdicts[answer]["acc"] for answer in answers],
        clusters.labels,
        majority,
        bool(majority) and verdicts[majority]["acc"],
        clusters.timed_out + len(timed_out),
    )


def of_row(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns data_source and extra_info of the data's row."""
    extra_info = row.get("extra_info")  # not a number: of several files this one has none
    return str(row.get("data_source") or ""), extra_info if isinstance(extra_info, dict) else {}


def majority_of(labels: Sequence[int], answers: Sequence[str]) -> str:
    """Returns the answer of the largest cluster in its most frequent spelling, "" where all are
    blank."""
    members: dict[int, list[str]] = {}
    for label, answer in zip(labels, answers, strict=True):
        if answer.strip():
            members.setdefault(label, []).append(answer)
    largest = max(members.values(), key=len, default=[])
    return Counter(largest).most_common(1)[0][0] if largest else ""


def judge_by_reward(
    texts: Sequence[str], ground_truth: Any, row: Mapping[str, Any], grading: Grading
) -> Judged:
    """Judges the responses to one prompt by `grading.reward`, each distinct text once.

    Args:
        texts: the responses.
        ground_truth: of the row.
        row: data_source and extra_info of the data's row, which the function gets too.
        grading: the function, and what becomes of blank answers.
    """
    assert grading.reward is not None
    more = of_row(row)
    verdicts = {t: grading.reward.verdict(t, ground_truth, *more) for t in dict.fromkeys(texts)}
    answers = [verdicts[text].answer for text in texts]
    correct = [verdicts[text].correct for text in texts]
    labels = cluster(answers, str, operator.eq, grading.unparsable).labels
    majority = majority_of(labels, answers)
    majority_correct = bool(majority) and correct[answers.index(majority)]
    return Judged(answers, correct, labels, majority, majority_correct, timed_out=0)


def judge_prompts(
    texts: Iterable[Sequence[str]],
    ground_truths: Iterable[str],
    grading: Grading,
    equivalence: Equivalence,
    rows: Iterable[Mapping[str, Any]] | None = None,
) -> list[Judged]:
    """Judges the responses to many prompts, `grading.workers` at a time, as `judge_prompt` does.

    With `grading.reward` as `judge_by_reward` does, one prompt after another: such a function need
    not be safe in threads. `rows` are the data's, one per prompt.
    """
    rows = repeat({}) if rows is None else rows
    if grading.reward is not None:
        by_reward = partial(judge_by_reward, grading=grading)
        return list(map(by_reward, texts, ground_truths, rows))
    judge = partial(judge_prompt, grading=grading, equivalence=equivalence)
    with ThreadPoolExecutor(grading.workers) as pool:
        return list(pool.map(judge, texts, ground_truths, rows))
