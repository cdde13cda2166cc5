"""Each number in the text of docs/study_acts_cpu_results.md, from the values that are committed.
Its tables are held by test_windows.py and test_docs.py."""

from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from result_pages import KEY, ResultsPage, excludes_zero, limits, percent
from scipy.special import stdtrit

from recipe.experiment.statistics import holm, interval, t_test

ROOT = Path(__file__).parents[2]
ENTROPY, SEEDS = "diagnostics/held_out_entropy", range(10, 16)
TESTED = {  # of the family `entropy`
    "1a": "id", "1b": "id", "2a": "did", "2b": "did", "2c": "did", "4": "asymgrpo", "5a": "sent",
    "7": "clip_higher", "8": "all_three",
}  # fmt: skip
OTHERS = ["no_upper_bound", "id", "asymgrpo", "did", "od", "clip_higher"]  # SENT's are below GRPO


PAGE = ResultsPage("study_acts_cpu")


@pytest.fixture(scope="module")
def statistic():
    """statistic(hypothesis, arm, metric): its value at each seed."""
    values = PAGE.values()
    return lambda hypothesis, arm, metric: values.loc[hypothesis, metric, arm]


@pytest.fixture(scope="module")
def entropy(statistic):
    """entropy(hypothesis): the paired differences to GRPO."""
    metric = dict.fromkeys(TESTED, ENTROPY) | {"0": "actor/entropy"}
    arms = TESTED | {"0": "no_upper_bound"}

    def differences(name):
        a, b = (statistic(name, arm, metric[name]) for arm in (arms[name], "grpo"))
        return (a - b).dropna().to_numpy()

    return differences


@pytest.fixture(scope="module")
def accuracy(statistic):
    """accuracy(arm): its paired differences to GRPO over steps 160 to 200."""

    def differences(arm):
        metric = "val-core/synthetic/target_sums/acc/"
        # GRPO's value is in the rows of each method's hypothesis
        a, b = (statistic(f"A {arm}", name, metric) for name in (arm, "grpo"))
        return (a - b).dropna().to_numpy()

    return differences


@pytest.fixture(scope="module")
def beside(statistic):
    """beside(hypothesis, arm, metric): its mean over the seeds that both arms have."""

    def mean(hypothesis, arm, metric):
        other = TESTED.get(hypothesis, "no_upper_bound")
        seeds = statistic(hypothesis, other, metric).index
        return statistic(hypothesis, arm, metric).loc[seeds].mean()

    return mean


def test_the_runs_and_their_time():
    runs = PAGE.table("_runs")
    assert (
        runs.commit.str.startswith("9fe13bc").all() and not runs.commit.str.contains("dirty").any()
    )
    first = runs[runs.seed.isin(SEEDS) & (runs.arm != "grpo_again")]
    assert first.groupby("seed").size().tolist() == [9] * 6
    began = runs[runs.arm.isin(["grpo", "no_upper_bound"]) & runs.seed.isin([10, 11])]
    began = began.set_index(KEY).started.map(datetime.fromisoformat)
    # the first run of the second seed begins when the seed before is through
    minutes = (began["grpo", 11] - began["no_upper_bound", 10]).total_seconds() / 60
    again = runs.set_index(KEY).started.map(datetime.fromisoformat)
    hours = (again["grpo_again", 10] - again["grpo", 10]).total_seconds() / 3600
    PAGE.says(
        f"{len(first)} runs",
        f"a seed takes {minutes:.0f} minutes",
        f"on the same machine, {hours:.0f} hours later",
    )


def test_the_control(entropy):
    differences = entropy("0")
    assert (differences > 0).all() and len(differences) == 12
    PAGE.says(
        f"keeps {differences.mean():.3f} nats more entropy than GRPO, "
        f"{limits(differences, sign='')}, at each of twelve seeds",
        f"beforehand, 0.02 nats: it is {(e := interval(differences[:, None])).high - e.mean:.4f}.",
    )
    first = differences[: len(SEEDS)]
    half_width, of_seven = (
        (e := interval(x[:, None])).high - e.mean for x in (first, differences[:7])
    )
    stein = -stdtrit(5, 0.025) * first.std(ddof=1) / 7**0.5
    assert differences[6] == differences.max()
    PAGE.says(
        f"the control is {first.mean():.3f} nats above GRPO with a half width of {half_width:.5f}",
        f"which the difference is {differences[6]:.3f}, the largest of all",
        f"by the spread of the six, is {stein:.4f}, and Student's, by their own, {of_seven:.4f}",
    )


def test_the_verdicts_on_entropy(entropy):
    p = {name: t_test(entropy(name) - (0.01 if name == "2a" else 0)) for name in TESTED}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    x = entropy("1a")
    assert (x > 0).sum() == 5 and len(x) == 6
    PAGE.says(
        f"by {x.mean():.3f} nats, {limits(x, sign='')}, in five seeds of six",
        f"(Holm's p {corrected['1a']:.2f})",
        ", ".join(f"{d:+.3f}" for d in x[:-1]) + f" and {x[-1]:+.3f} nats at seeds 10 to 15",
    )
    estimate = interval(entropy("1b")[:, None])
    PAGE.says(f"at most {-estimate.low:.3f} nats below, and {estimate.high:.3f} above")
    x = entropy("2a")
    PAGE.says(
        f"The difference is {x.mean():.3f}; "
        f"the interval's upper end is {interval(x[:, None]).high:.3f}"
    )
    for name, text in (("2b", "above: not seen**, "), ("2c", "falls: not seen**, ")):
        PAGE.says(f"{text}{entropy(name).mean():+.3f}, {limits(entropy(name))}")
    PAGE.says(f"with the widest interval, {limits(entropy('4'))}")
    x = entropy("7")
    assert (x > 0).sum() == 5
    PAGE.says(
        f"Clip-Higher above: not seen**, {x.mean():+.3f}, {limits(x)}, above in five seeds of six"
    )
    widths = [(e := interval(entropy(name)[:, None])).high - e.mean for name in TESTED]
    assert max(widths) == widths[[*TESTED].index("4")]
    PAGE.says(f"below are {min(widths):.3f} to {max(widths):.3f} nats")
    for name in ("1a", "1b", "2b", "2c", "4", "7"):
        assert corrected[name] > 0.05
    for name in ("5a", "8"):
        assert entropy(name).mean() > 0 and corrected[name] < 0.001


def test_sent_s_entropy_accuracy_and_pass_at_8(entropy, accuracy):
    results = PAGE.values("_results")["test", "pass@8"]
    gains = [(results[arm] - results["grpo"]).dropna() for arm in ("sent", "all_three")]
    e, a, p = (
        [f"{abs(x.mean()):.{places}f}" for x in both]
        for both, places in (
            ([entropy("5a"), entropy("8")], 2),
            ([accuracy("sent"), accuracy("all_three")], 2),
            (gains, 3),
        )
    )
    PAGE.says(
        f"keeps {e[0]} and {e[1]} nats more entropy, at {a[0]} and {a[1]} less accuracy",
        f"pass@8 is {p[0]} and {p[1]} above GRPO's",
    )
    differences = {
        arm: (results[arm] - results["grpo"]).dropna() for arm in ("sent", "all_three", *OTHERS)
    }
    for seeds, clear in ((SEEDS, []), (range(10, 22), ["no_upper_bound"])):
        of = {arm: x[x.index.isin(seeds)].to_numpy() for arm, x in differences.items()}
        assert [arm for arm, x in of.items() if excludes_zero(x)] == ["sent", "all_three", *clear]
    PAGE.says(
        f"with its further seeds the control's, by {differences['no_upper_bound'].mean():.3f}; "
        f"by chance {0.05 * len(differences):.1f} would"
    )


def test_no_method_is_more_accurate(accuracy):
    high = [interval(accuracy(arm)[:, None]).high for arm in OTHERS]
    assert max(high) <= 0.03 and not any(excludes_zero(accuracy(arm)) for arm in OTHERS)
    assert all(interval(accuracy(arm)[:, None]).high < 0 for arm in ("sent", "all_three"))
    PAGE.says(f"of A are {min(high):.3f} to {max(high):.3f} for all but SENT's")


def test_the_curves():
    curves = PAGE.table("_curves")
    paired = curves[curves.seed.isin(SEEDS)]
    mean = paired.groupby(["arm", "step"])[["entropy", "accuracy"]].mean()
    of = mean.entropy["grpo"]
    PAGE.says(f"falls from {of[0]:.3f} nats to {of[200]:.3f} in GRPO")
    sent, grpo = mean.accuracy["sent"], mean.accuracy["grpo"]
    assert (sent < grpo).loc[30:].all() and not (sent < grpo).loc[:20].all()
    PAGE.says(
        f"at step 100 its accuracy is {sent[100]:.2f} and GRPO's {grpo[100]:.2f}, "
        f"at step 200 {sent[200]:.2f} and {grpo[200]:.2f}"
    )
    by_arm = curves.set_index(["arm", "seed", "step"]).sort_index()
    again = by_arm.loc["grpo_again"]
    pd.testing.assert_frame_equal(again, by_arm.loc["grpo"].loc[again.index])
    results = PAGE.values("_results").unstack("arm")
    again = results["grpo_again"].dropna()
    assert (results["grpo"].loc[again.index] == again).all() and len(again) >= 2 * 2


def test_the_switches_of_od(statistic):
    assert set(statistic("3", "od", "clip_entropy/raising")) == {1}
    low, high = (statistic("3", "od", f"clip_entropy/tau_{end}").mean() for end in ("low", "high"))
    assert high == pytest.approx((5 * low + low) / 2, rel=0.01)  # from H_init, by a line, to low
    PAGE.says(
        "It switches once in each",
        f"until the entropy is at {low:.2f} nats (0.2 H_init, with H_init = {low / 0.2:.1f}",
        f"the ceiling, {low:.2f} at the last step",
    )


def test_the_mechanism_s_numbers(beside, entropy):
    def clipped(name, arm, region="E2"):
        return beside(name, arm, f"clip_entropy/{region}/clipped_share")

    def change(name, arm, region="E2"):
        return beside(name, arm, f"clip_entropy/{region}/entropy_change")

    one, three = (f"{change('0', 'grpo', region):+.3f}" for region in ("E1", "E3"))
    shares = [percent(clipped("0", "grpo", region)).rstrip(" %") for region in ("E1", "E3")]
    PAGE.says(
        f"takes {percent(clipped('0', 'grpo'))} of E2's tokens, whose predicted change is "
        f"{change('0', 'grpo'):.3f}; E1's and E3's are {one} and {three}, and {shares[0]} and "
        f"{shares[1]} % of their tokens are clipped. Without an upper bound E2's change is "
        f"{change('0', 'no_upper_bound'):.4f}"
    )
    pairs = [
        (percent(clipped(name, TESTED[name])), percent(clipped(name, "grpo")))
        for name in ("1a", "2b", "7", "1b")
    ]
    PAGE.says(
        f"of E2, ID clips {pairs[0][0]} for GRPO's {pairs[0][1]} (1a), DID {pairs[1][0]} for "
        f"{pairs[1][1]} (2b), Clip-Higher {pairs[2][0]} for {pairs[2][1]}",
        f"({pairs[3][0]} for {pairs[3][1]}), and "
        f"{100 * beside('1b', 'id', 'actor/pg_clipfrac'):.1f} % of all tokens",
    )
    growth = [change(n, TESTED[n]) / change(n, "grpo") - 1 for n in ("1a", "2b", "7")]
    assert min(growth) > 0.15 and max(growth) < 0.2  # a sixth is 0.167
    estimate = interval(entropy("4")[:, None])
    advantage, covariance = (
        [beside("4", arm, f"diagnostics/{metric}") for arm in ("grpo", "asymgrpo")]
        for metric in ("advantage/positive_mean", "covariance/all")
    )
    PAGE.says(
        f"mean from {advantage[0]:.2f} to {advantage[1]:.2f}",
        f"from {covariance[0]:.3f} to {covariance[1]:.3f}; {estimate.mean:.3f} nats are what shows "
        f"of it, within {limits(entropy('4'))}",
        f"holds {percent(beside('5a', 'sent', 'sent/constrained_share'))} of the tokens",
        f"by its KL, {beside('5a', 'sent', 'sent/rest/kl'):.2f} nats per token",
    )


def test_the_readme_says_the_same(entropy, accuracy):
    readme = " ".join((ROOT / "README.md").read_text().split())
    results = PAGE.values("_results")["test", "pass@8"]
    gain = (results["sent"] - results["grpo"]).mean()
    assert (
        f"SENT by its method section (`sent_paper`) keeps {entropy('5a').mean():.2f} nats more "
        f"and gains {gain:.2f} of pass@8, "
        f"at {-accuracy('sent').mean():.2f} less accuracy" in readme
    )
