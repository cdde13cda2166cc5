"""What is said of a controller: that it acted, that it did not, that it would have."""

import pytest

from recipe.entropy_control.diagnosis import findings
from recipe.experiment.evidence import Evidence

NODE = "algorithm.entropy_control"


def texts(steps: list[dict[str, float]], controller: str | None) -> list[str]:
    node = {} if controller is None else {"entropy_control": {"controller": controller}}
    run = Evidence({k + 1: row for k, row in enumerate(steps)}, {"algorithm": node})
    return [finding.text for finding in findings(run)]


@pytest.mark.parametrize("controller", [None, "none"])
def test_without_a_controller_it_says_how_often_one_would_have_acted(controller):
    rows = [{"actor/entropy": entropy} for entropy in (0.4, 0.3, 0.19, 0.1)]
    (text,) = texts(rows, controller)
    assert text.startswith("The entropy was below 0.2 nats on 50 % of the steps: on these Skywork")
    assert texts(rows[:2], controller) == []


def test_a_controller_that_acted_is_told_with_its_figures():
    rows = [{"entropy_control/changed_share": share} for share in (0.0, 0.4)]
    (text,) = texts(rows, "range")
    assert (
        text
        == "The controller range acted on 50 % of the steps and changed 20 % of the advantages."
    )
    rows = [{"entropy_control/coefficient": value} for value in (0.001, 0.003)]
    assert (
        "acted on 100 % of the steps, with a mean coefficient of 0.002." in texts(rows, "target")[0]
    )


def test_a_controller_that_never_acted_is_told_too():
    (text,) = texts([{"entropy_control/coefficient": 0.0}] * 3, "target")
    assert "acted on 0.0 % of the steps: the run is one without it" in text
    assert texts([], "target") == []
