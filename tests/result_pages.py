"""A page of a study's results in docs/, and the values that are committed beside it."""

from pathlib import Path

import numpy as np
import pandas as pd

from recipe.experiment.statistics import interval

DOCS = Path(__file__).parents[1] / "docs"
KEY = ["arm", "seed"]


class ResultsPage:
    """docs/NAME_results.md with docs/NAME*.csv."""

    def __init__(self, name: str):
        self.name = name
        self.text = " ".join((DOCS / f"{name}_results.md").read_text().split())

    def table(self, ending: str = "") -> pd.DataFrame:
        """docs/NAME`ending`.csv."""
        return pd.read_csv(DOCS / f"{self.name}{ending}.csv", dtype={"hypothesis": str})

    def values(self, ending: str = "") -> pd.Series:
        """Its values by the labels, arm and seed."""
        rows = self.table(ending)
        labels = [column for column in rows if column not in (*KEY, "value", "problems")]
        return rows.set_index([*labels, *KEY])["value"].sort_index()

    def says(self, *texts: str) -> None:
        """Asserts that the page has these texts."""
        assert not [text for text in texts if text not in self.text]


def limits(x: np.ndarray, places: int = 3, sign: str = "+") -> str:
    """The 95 % interval of a mean over seeds, as the pages write it."""
    estimate = interval(x[:, None])
    return f"[{estimate.low:{sign}.{places}f}, {estimate.high:{sign}.{places}f}]"


def excludes_zero(x: np.ndarray) -> bool:
    estimate = interval(x[:, None])
    return bool(estimate.low > 0 or estimate.high < 0)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"
