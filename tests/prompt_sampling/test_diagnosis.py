"""What is said of dynamic sampling and of an order by pass rates."""

from recipe.experiment.evidence import Evidence
from recipe.prompt_sampling.diagnosis import DROPPED, SURPLUS, findings


def texts(rows: list[dict[str, float]], filters: bool = False, order: str = "none") -> list[str]:
    config = {
        "algorithm": {"filter_groups": {"enable": filters}},
        "data": {"train_batch_size": 8, "prompt_sampling": {"order": order}},
    }
    run = Evidence({k + 1: row for k, row in enumerate(rows)}, config)
    return [finding.text for finding in findings(run)]


def test_dynamic_sampling_is_told_with_the_share_of_groups_that_it_cost():
    # 2 x 8 groups were trained on, 3 + 1 dropped, 5 too many: of 25
    rows = [{DROPPED: 3.0, SURPLUS: 5.0}, {DROPPED: 1.0}]
    (text,) = texts(rows, filters=True)
    assert "dropped 16 % of the generated groups" in text and "and 20 % as more than" in text
    assert "the run is one without it" not in text


def test_dynamic_sampling_that_dropped_nothing_is_told_too():
    (text,) = texts([{}, {}], filters=True)
    assert "dropped 0.0 %" in text and text.endswith("the run is one without it.")
    assert texts([], filters=True) == []


def test_an_order_is_told_with_its_chance_and_nothing_without_one():
    rows = [{"prompt_sampling/chance": chance} for chance in (1.0, 0.5, 0.4)]
    (text,) = texts(rows, order="variance")
    assert "by variance took a prompt with a mean chance of 100 % at the beginning and 40 %" in text
    assert "nearly a shuffle" in texts([{"prompt_sampling/chance": 0.95}] * 2, order="failure")[0]
    assert texts(rows) == []
    assert texts([{}], order="variance") == []
