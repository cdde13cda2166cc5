"""The cache of responses: one model's are never read as another's, whatever ended its removal."""

import json
import os

import pytest

from recipe.sampling.engine import Responses
from recipe.sampling.responses import SETTINGS_FILE, ResponseCache, cached_responses

OLD, NEW = ({"model": name, "dtype": "float32"} for name in ("old", "new"))
CHUNKS = 4


@pytest.fixture
def cache(tmp_path):
    cache = ResponseCache(tmp_path / "test.responses", OLD)
    for chunk in range(CHUNKS):
        cache.write(chunk, [str(chunk)], Responses([["answer of old"]]))
    return cache


@pytest.mark.parametrize("how", ["again", "again_if_changed"])
@pytest.mark.parametrize("deletions", range(CHUNKS + 1))
def test_an_interrupted_removal_leaves_no_response_to_be_taken(cache, monkeypatch, how, deletions):
    unlink, left = os.unlink, [None] * deletions

    def until_killed(*args, **kwargs):
        if not left:
            raise KeyboardInterrupt
        left.pop()
        unlink(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", until_killed)
        with pytest.raises(KeyboardInterrupt):
            ResponseCache(cache.folder, NEW, **{how: True})
    again = ResponseCache(cache.folder, NEW, again_if_changed=True)
    assert not any(again.file(chunk).exists() for chunk in range(CHUNKS))
    with pytest.raises(ValueError, match="holds no chunk"):
        cached_responses(again.folder)
    ResponseCache(cache.folder, OLD, again=True)
    assert [path.name for path in cache.folder.parent.iterdir()] == [cache.folder.name]


@pytest.mark.parametrize("how", ["again", "again_if_changed"])
def test_a_response_that_cannot_be_removed_is_said_and_not_taken(cache, monkeypatch, how):
    def busy(*args, **kwargs):
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", busy)
        with pytest.raises(OSError, match="busy"):
            ResponseCache(cache.folder, NEW, **{how: True})
    assert not any(cache.file(chunk).exists() for chunk in range(CHUNKS))


def test_responses_without_settings_are_nobody_s(cache):
    (cache.folder / SETTINGS_FILE).unlink()
    with pytest.raises(ValueError, match=r"without the settings.json .* --again to sample anew"):
        ResponseCache(cache.folder, NEW)
    assert cache.file(0).exists()
    again = ResponseCache(cache.folder, NEW, again_if_changed=True)
    assert not again.file(0).exists()


def test_settings_without_a_response_are_replaced(tmp_path):
    """Of a sampling that was stopped, or failed, before its first chunk."""
    other = ResponseCache(tmp_path, OLD)
    cache = ResponseCache(tmp_path, NEW)
    assert json.loads((tmp_path / SETTINGS_FILE).read_text()) == NEW
    with pytest.raises(ValueError, match="was taken by another sampling after this one"):
        other.write(1, ["1"], Responses([["answer of old"]]))  # was not stopped: both run
    cache.write(0, ["0"], Responses([["answer of new"]]))
    assert cached_responses(tmp_path)["prompt_id"].tolist() == ["0"]
    with pytest.raises(ValueError, match=r"another model \('new', now 'old'\)"):
        ResponseCache(tmp_path, OLD)


def test_responses_of_these_settings_stay(cache):
    same = ResponseCache(cache.folder, OLD, again_if_changed=True)
    assert len(cached_responses(same.folder)) == CHUNKS
