"""How the tests are shared out with pytest-xdist (`pytest -n 2`)."""

from __future__ import annotations

from typing import Any

import pytest


def is_training_run(nodeid: str) -> bool:
    return "/e2e/" in nodeid


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # the order below, not the largest group first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begins with the training runs, which take longest, then the file that would be alone at the
    end."""

    def order(item: pytest.Item) -> tuple[bool, bool]:
        last = "/test_write_a_recipe.py" in item.nodeid
        return not is_training_run(item.nodeid), not last

    items.sort(key=order)


@pytest.hookimpl(optionalhook=True)  # where pytest-xdist is not installed
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Groups the training runs, so that there is one at a time, and the tests of any other file,
    whose fixtures are made once."""
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "training runs" if is_training_run(nodeid) else nodeid.partition("::")[0]

    return Groups(config, log)
