"""Hypotheses about windows of steps, on made-up metrics files with known answers."""

import importlib.util
import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy.special import stdtrit

from recipe.experiment.metrics import changes, window_mean
from recipe.experiment.statistics import holm, interval, seeds_needed, t_test

ROOT = Path(__file__).parents[2]
STUDY_SEEDS = "entropy=6 switches=6 accuracy=6 rerun=2"  # of the main study's page


@pytest.fixture(scope="module")
def windows():
    spec = importlib.util.spec_from_file_location("windows", ROOT / "studies/windows.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["windows"] = module  # pydantic looks the module of a class up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["windows"]


# what each run logs at steps 1 to 4: E, and a switch
OFFSET = {"grpo": [0.0, 0.1, 0.2], "id": [0.3, 0.4, 0.5], "od": [0.1, 0.0, 0.2]}


def write_runs(out: Path, steps: int = 4) -> Path:
    arms = {name: {"recipe": "asymgrpo", "preset": "grpo"} for name in OFFSET}
    matrix = {"title": "t", "baseline": "grpo", "seeds": [0, 1, 2], "arms": arms}
    out.mkdir()
    (out / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    for arm, offsets in OFFSET.items():
        for seed, offset in enumerate(offsets):
            folder = out / arm / f"seed{seed}/metrics"
            folder.mkdir(parents=True)
            rows = [
                {"step": k, "data": {"E": 10 * k + offset, "raising": k // 2 % 2, "c/k": k + seed}}
                for k in range(1, steps + 1)
            ]
            (folder / "000.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
            record = {"config": {"trainer": {"total_training_steps": 4}}}
            (folder / "000.yaml").write_text(yaml.safe_dump(record))
    return out


HYPOTHESES = yaml.safe_load("""
"1": {family: f, arm: id, minus: grpo, metric: E, steps: [2, 3], claim: above}
"2": {family: f, arm: od, minus: grpo, metric: E, steps: [2, 3], claim: below}
"3": {family: g, arm: od, metric: raising, changes: [1, 4], claim: at_least, than: 2}
"4": {family: accuracy, arm: id, metric: E, steps: [4, 4], less: [1, 2]}
""")


def run(windows, tmp_path, capsys, hypotheses=HYPOTHESES, steps=4):
    out = write_runs(tmp_path / "out", steps)
    file = tmp_path / "hypotheses.yaml"
    file.write_text(yaml.safe_dump(hypotheses))
    windows.command([str(out), str(file)])
    return out, file, capsys.readouterr().out


def test_windows_differences_and_verdicts_of_made_up_runs(windows, tmp_path, capsys):
    out, file, printed = run(windows, tmp_path, capsys)
    lines = printed.splitlines()
    # id - grpo is 0.3 at each seed: no spread, nothing to test by
    assert lines[2] == (
        "| 1 | id minus grpo | 3 | +0.3000 [+0.3000, +0.3000] |  |  | all seeds equal |"
    )
    # od - grpo: 0.1, -0.1, 0: mean 0, sd 0.1, half width t(2, 0.975) 0.1 / sqrt(3) = 0.2484
    assert "| 2 | od minus grpo | 3 |" in lines[3] and "[-0.2484, +0.2484] | 1.0000" in lines[3]
    assert lines[3].endswith("| not seen |")
    # 0, 1, 1, 0: two changes in each run, which is a claim about every run
    assert lines[4] == "| 3 | od | 3 | +2.0000 [+2.0000, +2.0000] |  |  | shows |"
    # 40 + x - (15 + x)
    assert "| 4 | id | 3 | +25.0000" in lines[5]
    values = pd.read_csv(out / "windows.csv", dtype={"hypothesis": str})
    first = values[(values.hypothesis == "1") & (values.arm == "grpo")]
    assert first["value"].tolist() == pytest.approx([25.0, 25.1, 25.2])
    # the committed values give the same table
    windows.command([str(out), str(file), "--values", str(out / "windows.csv")])
    assert capsys.readouterr().out == printed


def test_a_page_gets_the_tables_that_it_asks_for(windows, tmp_path, capsys):
    out, file, printed = run(windows, tmp_path, capsys)
    head, *rows = printed.splitlines()[:6]
    spread = printed.split("\n\n")[1]
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- results -->\nof another command\n<!-- end of results -->\n"
        "a\n<!-- hypotheses: g -->\nold\n<!-- end of hypotheses -->\nb\n"
        "<!-- hypotheses: spread -->\n<!-- end of hypotheses -->\n"
    )
    windows.command([str(out), str(file), "--into", str(page)])
    assert page.read_text() == (
        "<!-- results -->\nof another command\n<!-- end of results -->\n"
        f"a\n<!-- hypotheses: g -->\n{head}\n{rows[0]}\n{rows[3]}\n<!-- end of hypotheses -->\nb\n"
        f"<!-- hypotheses: spread -->\n{spread}<!-- end of hypotheses -->\n"
    )
    page.write_text("<!-- hypotheses: h -->\n<!-- end of hypotheses -->\n")
    with pytest.raises(ValueError, match="'h' does not exist"):
        windows.command([str(out), str(file), "--into", str(page)])


def test_metrics_beside_a_hypothesis_are_shown_of_both_arms(windows, tmp_path, capsys):
    """Over its window; they are no hypotheses, so that they have no part in the correction."""
    plain = run(windows, tmp_path, capsys)[2]
    beside = {name: dict(spec) for name, spec in HYPOTHESES.items()}
    beside["1"]["beside"] = ["c/k", "clip_entropy/E1/share"]
    (tmp_path / "b").mkdir()
    out, file, printed = run(windows, tmp_path / "b", capsys, beside)
    # steps 2 and 3: 2.5, and 0, 1, 2 more at the seeds: 3.5; no run has logged the share
    assert printed == plain + (
        "\n| hypothesis | steps | arm | seeds | c/k | E1/share |\n"
        "| --- | --- | --- | --- | --- | --- |\n"
        "| 1 | 2 to 3 | grpo | 3 | 3.5 |  |\n"
        "| 1 | 2 to 3 | id | 3 | 3.5 |  |\n"
    )
    windows.command([str(out), str(file), "--values", str(out / "windows.csv")])
    assert capsys.readouterr().out == printed
    page = tmp_path / "page.md"
    page.write_text("<!-- hypotheses: mechanism -->\n<!-- end of hypotheses -->")
    windows.command([str(out), str(file), "--into", str(page)])
    assert page.read_text().split("-->\n")[1].startswith(printed.split("\n\n")[2])


def test_metrics_beside_are_of_the_paired_seeds_and_of_any_window(windows, tmp_path, capsys):
    """A table for each list of metrics; id has no run at seed 2, so that grpo's is left out."""
    beside = {name: dict(spec) for name, spec in HYPOTHESES.items()}
    beside["1"]["beside"] = ["c/k"]
    beside["3"]["beside"] = ["c/k", "E"]  # of the steps in which the changes are counted
    out, file, _ = run(windows, tmp_path, capsys, beside)
    metrics = out / "id/seed2/metrics/000.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    windows.command([str(out), str(file)])
    # steps 2 and 3: 2.5, and 0, 1 more at the seeds; steps 1 to 4: 2.5 and 0, 1, 2 more; 25 + 0.1
    assert capsys.readouterr().out.endswith(
        "\n\n| hypothesis | steps | arm | seeds | c/k |\n| --- | --- | --- | --- | --- |\n"
        "| 1 | 2 to 3 | grpo | 2 | 3 |\n| 1 | 2 to 3 | id | 2 | 3 |\n\n"
        "| hypothesis | steps | arm | seeds | c/k | E |\n| --- | --- | --- | --- | --- | --- |\n"
        "| 3 | 1 to 4 | od | 3 | 3.5 | 25.1 |\n"
    )


def test_a_spread_that_several_hypotheses_share_is_shown_once(windows):
    spec = {"family": "accuracy", "minus": "grpo", "metric": "A", "steps": (1, 1)}
    hypotheses = [windows.Hypothesis(name=arm, arm=arm, **spec) for arm in ("id", "od")]
    values = {(h.name, arm, "A"): {0: 0.1, 1: 0.3} for h in hypotheses for arm in (h.arm, "grpo")}
    rows = windows.spreads(hypotheses, values).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["id", "grpo", "od"]


def family_of_three(offsets: list[float], claim: str) -> tuple[list[dict], dict]:
    """Two hypotheses whose interval holds 0, and one of these paired differences."""
    zero = dict.fromkeys(range(3), 0.0)
    values = {("x", "id", "E"): dict(enumerate(offsets)), ("x", "grpo", "E"): zero}
    for name in ("y", "z"):
        values |= {(name, "id", "E"): {0: 0.1, 1: -0.1, 2: 0.0}, (name, "grpo", "E"): zero}
    spec = {"family": "f", "arm": "id", "minus": "grpo", "metric": "E", "steps": (1, 1)}
    return [{"name": name, "claim": claim, **spec} for name in "xyz"], values


@pytest.mark.parametrize(
    ("sign", "claim", "verdict"),
    [
        (1, "above", "shows, not after correction"),
        (1, "below", "shows the opposite, not after correction"),
        (-1, "above", "shows the opposite, not after correction"),
        (1, "", "above, not after correction"),
        (-1, "", "below, not after correction"),
        (-1, "at_most", "shows"),  # by the interval alone
        (1, "at_most", "shows the opposite"),
        (1, "at_least", "shows"),  # by every run alone
    ],
)
def test_a_verdict_that_the_correction_takes_away_is_named_so(windows, sign, claim, verdict):
    # 0.2, 0.3, 0.4: t = 0.3 / (0.1 / sqrt(3)) = 5.196, p 0.0351, times 3: 0.1053
    specs, values = family_of_three([sign * x for x in (0.2, 0.3, 0.4)], claim)
    hypotheses = [windows.Hypothesis(**spec) for spec in specs]
    row = windows.table(hypotheses, values, {"f": 3}).splitlines()[2]
    assert "| 0.0351 | 0.1053 |" in row and row.endswith(f"| {verdict} |")


@pytest.mark.parametrize(("half_width", "verdict"), [(0.248, "too wide"), (0.249, "shows")])
def test_an_interval_wider_than_the_hypothesis_allows_shows_nothing(windows, half_width, verdict):
    # sd 0.1 of three: half width t(2, 0.975) 0.1 / sqrt(3) = 0.2484
    specs, values = family_of_three([0.2, 0.3, 0.4], "above")
    hypothesis = windows.Hypothesis(**specs[0], half_width=half_width)
    assert windows.table([hypothesis], values, {"f": 3}).endswith(f"| {verdict} |")


@pytest.mark.parametrize(
    ("needed", "outcomes"),
    [
        # t = 0.3 / (0.1 / sqrt(3)): p 0.0351; of the others two seeds are there of three
        (3, ["| 0.0351 | 0.0351 | shows |", *["|  |  | 2 of 3 seeds, not tested |"] * 2]),
        # 0.1 and -0.1: p 1, and three are tested
        (2, ["| 0.0351 | 0.1053 | shows, not after correction |", *["| 1.0000 | 1.0000 |"] * 2]),
    ],
)
def test_a_family_is_its_hypotheses_that_have_all_seeds(windows, needed, outcomes):
    specs, values = family_of_three([0.2, 0.3, 0.4], "above")
    for name in "yz":
        del values[name, "id", "E"][2]
    hypotheses = [windows.Hypothesis(**spec) for spec in specs]
    rows = windows.table(hypotheses, values, {"f": needed}).splitlines()[2:]
    assert all(outcome in row for row, outcome in zip(rows, outcomes, strict=True))


@pytest.mark.parametrize("claim", ["", "above", "below", "at_most", "at_least"])
def test_no_claim_is_tested_before_its_seeds_have_run(windows, claim):
    specs, values = family_of_three([0.2, 0.3, 0.4], claim)
    row = windows.table([windows.Hypothesis(**specs[0])], values, {"f": 6}).splitlines()[2]
    assert row.endswith("|  |  | 3 of 6 seeds, not tested |")


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_seeds_that_are_equal_have_no_p_value_and_count_in_the_correction(windows, value):
    # the second hypothesis's p is 0.0351, times the 3 of its family
    specs, values = family_of_three([value] * 3, "above")
    values["y", "id", "E"] = dict(enumerate([0.2, 0.3, 0.4]))
    hypotheses = [windows.Hypothesis(**spec) for spec in specs]
    first, second = windows.table(hypotheses, values, {"f": 3}).splitlines()[2:4]
    assert first.endswith("|  |  | all seeds equal |") and "| 0.0351 | 0.1053 |" in second


@pytest.mark.parametrize(("name", "seeds"), [("study_acts", 12), ("rivals", 3), ("acts_pilot", 4)])
def test_a_study_s_families_need_all_seeds_of_its_matrix(windows, name, seeds):
    """The study's page fixes six, twelve for hypothesis 0, and two of the same runs again."""
    matrix = windows.read_matrix(ROOT / f"studies/{name}_cpu.yaml")
    hypotheses = windows.read_hypotheses(ROOT / f"studies/hypotheses/{name}_cpu.yaml")
    needed = windows.seeds_of_families(matrix, hypotheses)
    assert set(needed.values()) == {seeds}
    if name == "study_acts":
        assert matrix.seeds == tuple(range(10, 22))
        given = windows.seeds_of_families(matrix, hypotheses, STUDY_SEEDS.split())
        assert given == dict.fromkeys(needed, 6) | {"control": 12, "rerun": 2}


@pytest.mark.parametrize("given", ["f=1", "f=4", "f=", "f", "f=two", "h=2"])
def test_seeds_of_a_family_that_cannot_be_are_one_sentence(windows, tmp_path, capsys, given):
    out, file, _ = run(windows, tmp_path, capsys)
    with pytest.raises(ValueError, match=f"--seeds {given}"):
        windows.command([str(out), str(file), "--seeds", given])


def test_the_first_hypothesis_of_the_study_bounds_its_half_width(windows):
    first = windows.read_hypotheses(ROOT / "studies/hypotheses/study_acts_cpu.yaml")[0]
    assert first.name == "0" and first.half_width == 0.02


def test_a_run_that_is_not_finished_is_left_out(windows, tmp_path, capsys):
    out, file, printed = run(windows, tmp_path, capsys)
    metrics = out / "id/seed2/metrics/000.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    windows.command([str(out), str(file)])
    assert "| 1 | id minus grpo | 3 |" in printed
    assert "| 1 | id minus grpo | 2 |" in capsys.readouterr().out


def test_without_a_finished_run_the_values_that_were_kept_stay(windows, tmp_path, capsys):
    out, file, _ = run(windows, tmp_path, capsys)
    kept = (out / "windows.csv").read_bytes()
    for arm in OFFSET:
        shutil.rmtree(out / arm)
    with pytest.raises(ValueError, match=r"out has no finished run with a metric of .* --values"):
        windows.command([str(out), str(file)])
    assert (out / "windows.csv").read_bytes() == kept


@pytest.mark.parametrize("window", ["steps", "changes", "less"])
def test_a_window_beyond_the_last_step_of_a_finished_run_is_refused(
    windows, tmp_path, capsys, window
):
    """Its curriculum was shorter: the mean would be over the steps that are there."""
    out, file, _ = run(windows, tmp_path, capsys)
    kept = (out / "windows.csv").read_bytes()
    spec = {"family": "f", "arm": "id", "minus": "od", "metric": "E", "steps": [1, 2]}
    spec |= {window: [2, 4]} if window != "changes" else {"steps": None, "changes": [2, 4]}
    file.write_text(yaml.safe_dump({"late": spec}))
    for seed in (1, 2):
        metrics = out / f"od/seed{seed}/metrics/000.jsonl"
        metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:3]))
    metrics.with_suffix(".end").write_text("finished\n")  # of seed 2 alone
    message = rf"hypothesis late: {window}=\[2, 4\] .* od/seed2 has ended at step 3"
    with pytest.raises(ValueError, match=message):
        windows.command([str(out), str(file)])
    assert (out / "windows.csv").read_bytes() == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": None}, "1 needs either steps or changes"),
        ({"changes": [1, 2]}, "1 needs either steps or changes"),
        ({"claim": "higher"}, "1.claim is not allowed"),
        ({"half_width": 0}, "1.half_width is not allowed"),
        ({"arm": "idd"}, "1: idd does not exist: did you mean id"),
    ],
)
def test_a_hypothesis_that_cannot_be_read_is_one_sentence(
    windows, tmp_path, capsys, change, message
):
    with pytest.raises(ValueError, match=message):
        run(windows, tmp_path, capsys, {"1": {**HYPOTHESES["1"], **change}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b'"1": [', "cannot be read as yaml"),
        (b'"1": {steps: [1, 2], steps: [1, 3]}', "cannot be read as yaml"),
        (b'"1": ${', "cannot be read as yaml"),
        (b"3", "cannot be read as yaml"),
        (b"\xff", "cannot be read as yaml"),
        (b"", "has no hypotheses"),
        (b"- family: f", "has no hypotheses"),
        (b'"1":', "1=null is not allowed: give a mapping"),
        (b'"1": [f, id]', r"1=\['f', 'id'\] is not allowed: give a mapping"),
    ],
)
def test_a_file_that_is_no_mapping_of_hypotheses_is_one_sentence(windows, tmp_path, text, message):
    file = tmp_path / "hypotheses.yaml"
    file.write_bytes(text)
    with pytest.raises(ValueError, match=message) as refused:
        windows.read_hypotheses(file)
    assert str(file) in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["study_acts", "acts_pilot", "rivals"])
def test_the_committed_hypotheses_name_arms_of_their_matrix(windows, name):
    matrix = yaml.safe_load((ROOT / f"studies/{name}_cpu.yaml").read_text())
    hypotheses = windows.read_hypotheses(ROOT / f"studies/hypotheses/{name}_cpu.yaml")
    named = {arm for h in hypotheses for arm in (h.arm, h.minus) if arm}
    assert named <= set(matrix["arms"])


def test_the_study_s_page_and_its_file_have_the_same_windows_and_claims(windows):
    """Each row of the page: `steps 160 to 200) minus (the same, steps 80 to 120): below 0`."""
    hypotheses = {
        h.name: h for h in windows.read_hypotheses(ROOT / "studies/hypotheses/study_acts_cpu.yaml")
    }
    page = (ROOT / "docs/study_acts_cpu.md").read_text()
    rows = re.findall(r"^\| (\d[abc]?) \| .* \| (.*) \|$", page, flags=re.MULTILINE)
    checked = set()
    for name, statistic in rows:
        h = hypotheses[name]
        written = [tuple(map(int, pair)) for pair in re.findall(r"(\d+) to (\d+)", statistic)]
        if h.changes:
            assert statistic.endswith(f"at least {h.than:.0f} in every seed")
        elif written:
            assert written == [window for window in (h.steps, h.less) if window]
            claims = {"at_most": f"at most {h.than:g}"}
            assert claims.get(h.claim, f"{h.claim} {h.than:g}") in statistic
        checked.add(name)
    # 5b, 5c: the same as 5a
    same = [replace(hypotheses[name], name="", arm="", beside=()) for name in ("5a", "5b", "5c")]
    assert same[1:] == same[:1] * 2
    accuracy = [h for h in hypotheses.values() if h.family == "accuracy"]
    assert {h.steps for h in accuracy} == {(160, 200)} and "A | accuracy of each method" in page
    assert checked | {"5b", "5c"} == {h.name for h in hypotheses.values() if h.name[0].isdigit()}


def test_what_three_seeds_of_the_rivals_can_see():
    """The page's numbers: t(2, 1 - 0.025 / tests) sd / sqrt(3)."""
    page = " ".join((ROOT / "docs/rivals_cpu.md").read_text().split())

    def seen(sd, tests=1):
        return f"{-stdtrit(2, 0.025 / tests) * sd / 3**0.5:.3f}"

    accuracy, entropy = 0.0171 * 2**0.5, 0.0104  # two runs, unpaired; a paired difference
    assert f"of {seen(accuracy)} in accuracy or {seen(entropy)} nats" in page
    assert f"of nine must be {seen(accuracy, 9)}, and" in page
    assert f"of ten {seen(entropy, 10)} nats" in page


@pytest.mark.parametrize("name", ["study_acts_cpu", "rivals_cpu"])
def test_the_kept_statistics_are_means_of_the_kept_curves(windows, name):
    """Whatever a hypothesis's window was when its runs were kept, it is the file's now."""
    columns = {"diagnostics/held_out_entropy": "entropy", "val-core/": "accuracy"}
    curves = pd.read_csv(ROOT / f"docs/{name}_curves.csv").set_index(["arm", "seed"]).sort_index()
    values = windows.read_values(ROOT / f"docs/{name}.csv")
    hypotheses = windows.read_hypotheses(ROOT / f"studies/hypotheses/{name}.yaml")
    compared = 0
    for h in hypotheses:
        column = next((c for prefix, c in columns.items() if h.metric.startswith(prefix)), None)
        for arm in filter(None, (h.arm, h.minus)) if column else ():
            for seed, value in values.get((h.name, arm, h.metric), {}).items():
                rows = curves.loc[(arm, seed)].set_index("step")[column]
                means = [rows.loc[slice(*w)].mean() for w in (h.steps, h.less) if w]
                same = abs(means[0] - sum(means[1:]) - value) < 1e-6 * (1 + abs(value))
                assert same, f"{h.name} of {arm}, seed {seed}"  # without the values: see the page
                compared += 1
    assert compared >= 18


def test_a_window_holds_both_of_its_ends_and_only_logged_steps():
    steps = {0: {"x": 5.0}, 10: {"x": 1.0}, 15: {"y": 9}, 20: {"x": 2.0}, 30: {"x": None}}
    assert window_mean(steps, "x", 10, 30) == 1.5
    assert window_mean(steps, "x", 0, 0) == 5.0
    assert window_mean(steps, "x", 21, 40) is None
    assert changes({k: {"x": v} for k, v in enumerate([0, 0, 1, 1, 0])}, "x", 1, 4) == 2
    assert changes(steps, "z", 0, 30) is None


def test_the_t_test_agrees_with_the_interval():
    # 1, 2, 3: t = 2 / (1 / sqrt(3)) = 3.464, two sides, 2 degrees of freedom: 0.0742
    assert t_test([1, 2, 3]) == pytest.approx(0.0742, abs=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(50):
        x = rng.normal(0.6, 1, 5)
        estimate = interval(x[:, None])
        assert (t_test(x) < 0.05) is not (estimate.low <= 0 <= estimate.high)
    with pytest.raises(ValueError, match="at least two values"):
        t_test([1])


def test_holm_by_hand():
    # sorted 0.01, 0.02, 0.03, 0.4 times 4, 3, 2, 1: 0.04, 0.06, 0.06 (not below the former), 0.4
    assert holm([0.03, 0.01, 0.4, 0.02]).tolist() == pytest.approx([0.06, 0.04, 0.4, 0.06])
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


def test_seeds_needed_by_hand():
    # sd 0.02: n = 5: 2.7764 * 0.02 * sqrt(2/5) = 0.0351; n = 6: 2.5706 * 0.02 * sqrt(2/6) = 0.0297
    assert seeds_needed(0.02, 0.03) == 6
    assert seeds_needed(0.0, 0.03, least=4) == 4


@pytest.mark.parametrize(
    ("page", "name", "seeds"),
    [
        ("docs/study_acts_cpu.md", "acts_pilot_cpu", "control=2"),
        ("docs/study_acts_cpu_results.md", "study_acts_cpu", STUDY_SEEDS),
        ("docs/rivals_cpu_results.md", "rivals_cpu", "entropy=3 accuracy=3"),
    ],
    ids=lambda x: x,
)
def test_the_tables_of_a_page_are_of_the_committed_values(windows, page, name, seeds):
    matrix = windows.read_matrix(ROOT / f"studies/{name}.yaml")
    hypotheses = windows.read_hypotheses(ROOT / f"studies/hypotheses/{name}.yaml")
    values = windows.read_values(ROOT / f"docs/{name}.csv")
    needed = windows.seeds_of_families(matrix, hypotheses, seeds.split())
    assert windows.page(ROOT / page, hypotheses, values, needed) == (ROOT / page).read_text()
    assert f"--seeds {seeds}" in (ROOT / page).read_text()
    assert len(values) > 3


def test_values_of_another_kind_are_one_sentence(windows, tmp_path):
    file = tmp_path / "values.csv"
    file.write_text("arm,seed,value\ngrpo,0,1\n")
    with pytest.raises(
        ValueError, match=r"values.csv has no column hypothesis, metric: give a CSV"
    ):
        windows.read_values(file)
