"""A run's metrics while they are written."""

import json
from itertools import accumulate

import pytest

from recipe.experiment.metrics import (
    ENTROPY,
    TRAINED,
    Logged,
    Shared,
    StartReader,
    add_lines,
    is_token_mean,
    merged,
    metric_named,
    shared_metric,
)
from recipe.experiment.run import RunFolder

ROWS = [(0, {"v": 0.1}), (1, {"a": 1}), (2, {"a": 2}), (2, {"b": 2.5}), (3, {"a": None})]
LINES = [json.dumps({"step": step, "data": data}).encode() + b"\n" for step, data in ROWS]


@pytest.mark.parametrize("size", [1, 7, 30, 1000])
def test_reading_while_it_is_written_gives_what_reading_it_at_once_gives(tmp_path, size):
    """In blocks that end anywhere in a line, one of which is no row."""
    content = b"".join([*LINES[:2], b"no row\n", *LINES[2:], b'{"step": 4, "da'])
    file = tmp_path / "metrics/000.jsonl"
    file.parent.mkdir()
    file.write_bytes(b"")
    reader, seen = StartReader(file), []
    for end in accumulate([size] * (len(content) // size + 1)):
        with file.open("ab") as stream:
            stream.write(content[end - size : end])
        if reader.read():
            seen.append(max(reader.steps, default=None))
    assert not reader.read()
    assert merged([reader.steps]) == RunFolder(tmp_path).metrics()
    assert reader.steps[2] == {"a": 2, "b": 2.5} and sorted(seen) == seen and seen[-1] == 3


def test_a_later_start_replaces_what_it_repeats_and_leaves_the_starts_as_they_were():
    starts = [{1: {"a": 1}, 2: {"a": 2}, 3: {"a": 3}}, {2: {"a": 9, "b": 1}}]
    assert merged(starts) == {1: {"a": 1}, 2: {"a": 9, "b": 1}}
    assert starts[0][2] == {"a": 2} and 3 in starts[0]


def test_a_start_that_only_validates_an_earlier_checkpoint_takes_no_step_away():
    trained = {step: {TRAINED: step, "a": step} for step in range(1, 6)}
    starts = [trained, {2: {"val-core/x": 0.5}}]
    assert merged(starts) == trained | {2: {TRAINED: 2, "a": 2, "val-core/x": 0.5}}
    # one that validates first and then trains goes on where it did
    starts.append({3: {"val-core/x": 0.7}, 4: {TRAINED: 4, "a": 9}})
    expected = {3: trained[3] | {"val-core/x": 0.7}, 4: {TRAINED: 4, "a": 9}}
    assert merged(starts) == {1: trained[1], 2: {**trained[2], "val-core/x": 0.5}} | expected


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\u0085"])
def test_a_line_ends_at_its_newline_alone(character):
    name = f"val-core/a{character}b/acc"
    lines = [json.dumps({"step": k, "data": {name: k}}, ensure_ascii=False) for k in (1, 2)]
    steps = {}
    add_lines(steps, "\n".join(lines) + "\n")
    assert steps == {1: {name: 1}, 2: {name: 2}}


def test_the_names_of_metrics_are_kept_once_and_not_for_each_step():
    """They are longer than their values: of 128 metrics and 1,000 steps, 12 of 20 MB."""
    steps = {}
    lines = [json.dumps({"step": step, "data": {"a/name": 0.5, "b": step}}) for step in (1, 2)]
    add_lines(steps, "\n".join(lines))
    assert steps == {1: {"a/name": 0.5, "b": 1}, 2: {"a/name": 0.5, "b": 2}}
    assert all(one is other for one, other in zip(*steps.values(), strict=True))


def test_a_reader_may_keep_some_metrics_alone(tmp_path):
    file = tmp_path / "000.jsonl"
    file.write_text('{"step": 1, "data": {"val-core/x": 1, "val-aux/x": 2, "a": 3, "ab": 4}}\n')
    reader = StartReader(file, ("val-core/", "a"))
    reader.read()
    assert reader.steps == {1: {"val-core/x": 1, "a": 3, "ab": 4}}


def test_a_name_that_ends_in_a_slash_stands_for_the_mean_or_else_the_first_metric_below_it():
    steps = {0: {"v/b/mean@4": 1}, 1: {"v/a/best@4": 2, "w/z": 1}, 2: {"w/y": 1, "x": 2}}
    assert [metric_named(steps, name) for name in ("v/", "w/", "u/", "x")] == [
        *("v/b/mean@4", "w/y", "u/", "x")
    ]


VERL, ALL = "actor/entropy", "diagnostics/entropy/all"
BOTH = Logged({VERL, ALL})
SUMS = Logged({VERL}, token_mean=False)  # its actor/entropy is no mean over tokens


@pytest.mark.parametrize(
    ("runs", "metric", "note", "left_out"),
    [
        ([BOTH, BOTH], ALL, "", []),
        ([BOTH, Logged({"val-core/x/acc/mean@1"}), Logged(())], ALL, "", []),  # none trained yet
        ([BOTH, Logged({VERL})], VERL, VERL, []),  # of each run the same mean
        ([BOTH, BOTH._replace(token_mean=False), Logged({VERL})], ALL, "", ["2"]),
        ([BOTH, SUMS], ALL, "", ["1"]),
        ([SUMS], ALL, "", ["0"]),
        ([], ALL, "", []),
    ],
)
def test_runs_are_shown_by_the_entropy_that_most_have_as_a_mean_over_tokens(
    runs, metric, note, left_out
):
    shared = shared_metric({str(place): run for place, run in enumerate(runs)}, ENTROPY)
    assert shared == Shared(metric, note, tuple(left_out))
    names = ", ".join(left_out)
    reason = "; actor/entropy counts with loss_agg_mode=token-mean only."
    expected = f"{names}: left out of the entropy, which shows {metric}{reason}" if names else ""
    assert shared.warning("entropy") == expected


@pytest.mark.parametrize(
    ("mode", "is_mean"), [(None, True), ("token-mean", True), ("seq-mean-token-sum", False)]
)
def test_a_run_says_by_its_config_what_its_entropy_is(mode, is_mean):
    config = {"actor_rollout_ref": {"actor": {"loss_agg_mode": mode} if mode else {}}}
    assert is_token_mean(config) is is_mean
    assert Logged.from_run({0: {"a": 1}, 2: {"b": 1}}, {"config": config}) == ({"a", "b"}, is_mean)
    assert Logged.from_run({}, {"config": None}) == (set(), True)


def test_runs_are_shown_by_the_benchmark_that_most_have():
    aime, math = "val-core/aime24/acc/mean@8", "val-core/openai/math/acc/mean@1"
    runs = {"a": Logged({aime, math, aime.replace("mean", "best")}), "b": Logged({math})}
    runs["c"] = Logged({aime.replace("24", "25")})
    shared = shared_metric(runs, "val-core/")
    assert shared == Shared(math, "openai/math (and 2 more, not shown)", ("c",))
    assert shared.warning("accuracy") == f"c: left out of the accuracy, which shows {math}."
    assert shared_metric({"b": runs["b"]}, "val-core/").note == "openai/math"
    assert shared_metric({}, "val-core/") == Shared("val-core/", "", ())
