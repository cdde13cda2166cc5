"""How the tests are shared out with pytest-xdist (`pytest -n 2 --dist loadgroup`)."""

from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # the order below, not the largest file first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the training runs into one group, so that there is one at a time, and begins with them;
    any other file is a group, whose fixtures are made once."""
    for item in items:
        room = (
            "e2e" if "e2e" in item.path.parts else str(item.path.relative_to(Path(__file__).parent))
        )
        item.add_marker(pytest.mark.xdist_group(room))
    items.sort(key=lambda item: "e2e" not in item.path.parts)
