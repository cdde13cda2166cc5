"""A run's metrics while they are written."""

import json
from itertools import accumulate

import pytest

from recipe.experiment.metrics import StartReader, merged
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
