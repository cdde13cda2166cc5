"""Each number in the text of docs/rivals_cpu_results.md, from the values that are committed.
Its tables are held by test_windows.py and test_docs.py."""

from pathlib import Path

import pandas as pd
import pytest
from result_pages import KEY, ResultsPage, excludes_zero, limits, percent

from recipe.experiment.statistics import holm, interval, t_test

ROOT = Path(__file__).parents[2]
ENTROPY, ACCURACY = "diagnostics/held_out_entropy", "val-core/synthetic/target_sums/acc/"
METHODS = ["ce_gppo", "cispo", "dcpo", "steer", "max_rl", "target", "entropic", "entrocraft"]
TESTED = {f"E {name}": name for name in METHODS} | {"E entrocraft later": "entrocraft"}
PAGE, STUDY = ResultsPage("rivals_cpu"), ResultsPage("study_acts_cpu")
VALUES = PAGE.values()


def paired(hypothesis, arm, metric):
    """Returns its differences to GRPO, by the seed."""
    a, b = (VALUES.loc[hypothesis, metric, name] for name in (arm, "grpo"))
    return (a - b).dropna()


def entropy(hypothesis):
    return paired(hypothesis, TESTED[hypothesis], ENTROPY).to_numpy()


def accuracy(arm):
    return paired(f"A {arm}", arm, ACCURACY).to_numpy()


def beside(hypothesis, arm, metric):
    """Returns the mean over the seeds of a metric beside a hypothesis."""
    return VALUES.loc[hypothesis, metric, arm].mean()


def said(x, places=3):
    return f"{x.mean():+.{places}f}, {limits(x, places)}"


@pytest.fixture(scope="module")
def curves():
    return PAGE.table("_curves").set_index([*KEY, "step"]).sort_index()


def test_the_runs_and_what_they_began_from(curves):
    runs = PAGE.table("_runs")
    assert set(runs.commit) == {runs.commit[0]} and runs.commit[0].startswith("3cffe8e")
    assert runs.groupby("seed").size().to_dict() == {10: 10, 11: 9, 12: 9}
    models = runs.groupby("seed")["actor_rollout_ref.model.path"].agg(set)
    assert [len(of_seed) for of_seed in models] == [1, 1, 1]
    assert models[11] == models[12] != models[10]
    PAGE.says(f"{len(runs)} runs of 200 steps from commit 3cffe8e")
    study = STUDY.table("_curves").set_index([*KEY, "step"]).sort_index()
    columns = ["entropy", "accuracy"]
    pd.testing.assert_frame_equal(  # seed 10 ran on the study's machine
        curves.loc[("grpo", 10), columns], study.loc[("grpo", 10), columns]
    )


def test_the_verdicts_on_entropy():
    p = {name: t_test(entropy(name)) for name in TESTED}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    assert {name for name, value in corrected.items() if value < 0.05} == {
        "E target",
        "E entrocraft",
    }
    target, entrocraft, max_rl = (entropy(f"E {n}") for n in ("target", "entrocraft", "max_rl"))
    assert (max_rl > 0).all() and excludes_zero(max_rl)
    *first, last = (f"{x:+.3f}" for x in max_rl)
    PAGE.says(
        f"target keeps {target.mean():.3f} nats more than GRPO, {limits(target, sign='')}, and",
        f"Entrocraft {entrocraft.mean():.3f} nats more in steps 50 to 100, "
        f"{limits(entrocraft, sign='')}",
        f"lies {max_rl.mean():.3f} nats above GRPO, {limits(max_rl, sign='')}, at each seed",
        f"among the nine tested that is not beyond chance (Holm's p {corrected['E max_rl']:.2f})",
        f"{', '.join(first)} and {last} nats at seeds 10 to 12",
        f"**CE-GPPO above: not seen**, {said(entropy('E ce_gppo'))}. It is above at each seed",
        f"above: not seen**, {said(entropy('E cispo'))}, and {said(entropy('E dcpo'))}.",
        f"50 to 100: shows**, {entrocraft.mean():+.3f}. **Later it comes nearer: not seen**, "
        f"{said(entropy('E entrocraft later'))}; nearer at each seed",
        f"STEER and EntroPIC: not seen**, {said(entropy('E steer'))}, "
        f"and {said(entropy('E entropic'))}.",
    )
    assert len(TESTED) == 9 and (entropy("E ce_gppo") > 0).all()
    assert (entropy("E entrocraft later") < 0).all()
    unseen = ("cispo", "dcpo", "steer", "entropic")
    assert not any(excludes_zero(entropy(f"E {name}")) for name in unseen)
    widths = {name: (e := interval(entropy(name)[:, None])).high - e.low for name in TESTED}
    assert min(widths, key=widths.get) == "E steer"  # "its interval is the narrowest"


def test_no_method_is_more_accurate():
    p = {name: t_test(accuracy(name)) for name in METHODS}
    corrected = dict(zip(p, holm(list(p.values())), strict=True))
    assert [name for name in METHODS if corrected[name] < 0.05] == ["target"]
    assert [name for name in METHODS if excludes_zero(accuracy(name))] == ["target", "entrocraft"]
    assert all(accuracy(name).mean() < 0 for name in METHODS)
    high = {name: interval(accuracy(name)[:, None]).high for name in METHODS}
    assert {name for name in METHODS if high[name] > 0.03} == {"cispo", "max_rl", "ce_gppo"}
    high = {name: f"{end:.3f}" for name, end in high.items()}
    PAGE.says(
        f"ends {-accuracy('target').mean():.3f} below GRPO, {limits(accuracy('target'))}",
        f"Entrocraft is {-accuracy('entrocraft').mean():.3f} below",
        f"{high['entropic']} for EntroPIC, {high['steer']} for STEER, {high['dcpo']} for DCPO, "
        f"{high['cispo']} for CISPO and {high['max_rl']} for MaxRL",
    )
    results = PAGE.values("_results")["test", "pass@8"]
    gains = {n: (results[n] - results["grpo"]).dropna().to_numpy() for n in METHODS}
    assert [name for name in METHODS if excludes_zero(gains[name])] == ["target"]
    PAGE.says(
        "of eight intervals",
        f"(pass@8 {gains['target'].mean():+.3f})",
        f"leaves 0 out, {said(gains['target'])}, as SENT's did",
    )


def test_the_curves(curves):
    mean = curves.groupby(["arm", "step"]).mean()
    grpo = mean.entropy["grpo"]
    PAGE.says(f"falls from {grpo[0]:.3f} nats to {grpo[200]:.3f} in GRPO")
    by_arm = curves.accuracy.unstack(["arm", "seed"])
    late = -(by_arm["cispo"] - by_arm["grpo"]).loc[50:100].mean()
    PAGE.says(f"at each seed {late.min():.2f} to {late.max():.2f} below GRPO over steps 50 to 100")
    first = by_arm.loc[10]
    PAGE.says(
        f"its accuracy is {first['ce_gppo'].min():.2f} to {first['ce_gppo'].max():.2f} at step 10, "
        f"where GRPO's is {first['grpo'].min():.2f} to {first['grpo'].max():.2f}"
    )
    ended = by_arm["ce_gppo"].loc[50:]
    assert (ended[[10, 12]] == 0).all().all()
    PAGE.says(f"at seed 11 it recovers to {ended[11][200]:.2f}")
    weighted = by_arm["w_reinforce"][10]
    mean_advantage = 0.1 * weighted[0] - (1 - weighted[0])
    PAGE.says(
        f"{mean_advantage:.2f} in the mean at the pass rate of the start, {weighted[0]:.2f}. "
        f"After ten steps its accuracy is {weighted[10]:.3f}, at the end {weighted[200]:.3f}, "
        f"its entropy is {mean.entropy['w_reinforce'][200]:.1f} nats"
    )
    entropies = curves.entropy.unstack(["arm", "seed"])
    same = (entropies["target"] == entropies["grpo"]).all(axis=1)
    assert same.loc[:40].all() and not same.loc[50:].any()
    held = entropies["target"].loc[60:]
    PAGE.says(f"holds the held-out entropy at {held.min().min():.2f} to {held.max().max():.2f}")
    entrocraft = mean.entropy["entrocraft"]
    PAGE.says(f"which end at 0.1 and 0.2, to {entrocraft[200]:.2f}.")
    ends = [f"{mean.entropy[arm][200]:.2f}" for arm in ("grpo", "target", "entrocraft", "entropic")]
    readme = " ".join((ROOT / "recipe/entropy_control/README.md").read_text().split())
    assert (
        f"from {grpo[0]:.2f} down to {ends[0]} nats for GRPO, {ends[1]} for `target`, "
        f"{ends[2]} for `entrocraft_cosine` and {ends[3]} for `entropic`" in readme
    )
    nearer = (entropies["entropic"] - entropies["grpo"]).loc[200].mean()
    PAGE.says(f"it ends {nearer:.3f} nats above GRPO")


def test_the_mechanism_s_numbers():
    truncated = PAGE.values("_results")["test", "truncated share", "w_reinforce"].item()
    changed = "entropy_control/changed_share"
    clipped = "actor/pg_clipfrac"
    PAGE.says(
        f"{percent(truncated)} of its responses run into the limit",
        f"a coefficient of {beside('E target', 'target', 'entropy_control/coefficient'):.3f}",
        f"{percent(beside('E entrocraft', 'entrocraft', changed))} of the tokens lose their "
        "advantage in steps 50 to 100, and "
        f"{percent(beside('E entrocraft later', 'entrocraft', changed))} in steps 150 to 200",
        f"alpha is {beside('E entropic', 'entropic', 'entropy_control/alpha'):.2f} in the mean and "
        f"touches {percent(beside('E entropic', 'entropic', changed))} of the tokens",
        f"weighs {percent(beside('E steer', 'steer', 'clip_entropy/variant_share'))} of the tokens",
        f"clips {100 * beside('E dcpo', 'dcpo', clipped):.1f} % of the tokens for GRPO's "
        f"{100 * beside('E dcpo', 'grpo', clipped):.1f} %",
    )
    assert set(VALUES.loc["E ce_gppo", clipped, "ce_gppo"]) == {0.0}
