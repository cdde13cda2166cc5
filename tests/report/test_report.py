"""The report of a comparison: numbers against direct computations, and what a page must survive."""

import csv
import json
import math
import re
from itertools import combinations

import numpy as np
import pytest
from reports import Page, evaluated, matrix, run

from recipe import plot
from recipe.experiment.matrix import Arm, read_matrix
from recipe.experiment.statistics import interval
from recipe.report import __main__ as report
from recipe.report import tables
from recipe.report.charts import POINTS, style
from recipe.report.page import collect, render
from recipe.report.results import FINAL_METRICS, FinalMetric, binned, final_metrics

ARMS = "arms: {a: {recipe: r, preset: p}}"


def entropies(*values):
    return {step: {"actor/entropy": value} for step, value in enumerate(values, 1)}


def rows(file):
    return list(csv.DictReader(file.open()))


def page_of(out, *metrics):
    return Page(render(collect(out, metrics)))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Two arms, two seeds, three problems of four samples: written once."""
    out = tmp_path_factory.mktemp("report") / "out"
    matrix(out, ["base", "other"])
    rng = np.random.default_rng(0)
    correct = {}
    for a, arm in enumerate(["base", "other"]):
        for seed in (0, 1):
            curve = entropies(*(1 / (step + a + seed + 1) for step in range(8)))
            curve[0] = {"val-core/x/acc/mean@1": 0.25 + a / 4}
            run(out, arm, seed, curve, planned=8, config={"algorithm": {"beta": a}})
            correct[arm, seed] = rng.random((3, 4)) < 0.5
            evaluated(out, arm, seed, correct[arm, seed])
    report.write(out)
    return out, correct


def test_bands_are_means_lows_and_highs_over_the_seeds(small):
    out, _ = small
    found = [r for r in rows(out / "report/data/bands.csv") if r["metric"] == "actor/entropy"]
    assert len(found) == 2 * 8
    for row in found:
        a, step = row["arm"] == "other", int(row["step"])
        values = [1 / (step + a), 1 / (step + a + 1)]
        assert int(row["seeds"]) == 2
        assert float(row["mean"]) == pytest.approx(np.mean(values), rel=1e-12)
        assert (float(row["lowest"]), float(row["highest"])) == (min(values), max(values))


def test_results_are_the_accuracies_and_pass_at_k_of_the_parquets(small):
    out, correct = small
    found = {(r["arm"], r["metric"]): r for r in rows(out / "report/data/results.csv")}
    by_run = {
        (r["arm"], int(r["seed"]), r["metric"]): float(r["value"])
        for r in rows(out / "report/data/results_by_run.csv")
    }
    assert {metric for _, metric in found} == {
        *("avg@4", "pass@2", "majority@4", "response length", "truncated share"),
        *("final entropy", "last x/acc/mean@1"),
    }
    # pass@2: the share of pairs of samples with a correct one
    pairs = list(combinations(range(4), 2))
    direct = {
        "avg@4": {key: value.mean(1) for key, value in correct.items()},
        "pass@2": {k: np.mean([v[:, p].any(1) for p in pairs], axis=0) for k, v in correct.items()},
        "majority@4": {key: value.mean(1) > 0.5 for key, value in correct.items()},
        "response length": {key: 10 * np.arange(3) + 1.5 for key in correct},  # 10 index + sample
        "truncated share": {key: np.full(3, 0.25) for key in correct},  # the first sample
        # the last five of eight steps: 1 / (step + a + seed + 1), step = 3 .. 7
        "final entropy": {
            (arm, s): np.array([np.mean([1 / (i + (arm == "other") + s + 1) for i in range(3, 8)])])
            for arm, s in correct
        },
    }
    for metric, of_run in direct.items():
        for (arm, seed), values in of_run.items():
            assert by_run[arm, seed, metric] == pytest.approx(values.mean(), rel=1e-12)
        own = {
            arm: np.array([of_run[arm, seed] for seed in (0, 1)], float)
            for arm in ("base", "other")
        }
        row = found["other", metric]
        for names, values in (
            (("mean", "low", "high"), own["other"]),
            (("difference", "difference_low", "difference_high"), own["other"] - own["base"]),
        ):
            assert [float(row[name]) for name in names] == pytest.approx(interval(values))
        assert found["base", metric]["difference"] == ""


def test_the_page_shows_those_numbers_and_needs_no_network(small):
    out, correct = small
    text = (out / "report/index.html").read_text()
    page = Page(text)
    accuracy = np.mean([correct["other", seed].mean() for seed in (0, 1)])
    assert f"{accuracy:.3f}" in page.text and "2 methods, seeds 0, 1" in page.text
    entropy = next(c for c in page.drawn["charts"] if c["title"] == "Policy entropy")
    assert entropy["x"] == list(range(1, 9))
    assert entropy["lines"][0]["mean"] == pytest.approx(
        [(1 / s + 1 / (s + 1)) / 2 for s in range(1, 9)], rel=1e-3
    )
    assert len(page.scripts) == 2
    assert all(address.startswith(("data/", "figures/")) for address in page.addresses)
    assert "@import" not in text and "url(" not in text
    for name in ("charts", "final_charts"):
        assert (out / f"report/figures/{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_files(small, tmp_path):
    out, _ = small
    report.write(out, tmp_path)
    files = [file for file in sorted(tmp_path.rglob("*")) if file.is_file()]
    assert len(files) == 1 + 10 + 2  # the page; CSVs and results.md; pictures
    for file in files:
        assert file.read_bytes() == (out / "report" / file.relative_to(tmp_path)).read_bytes()


def test_nothing_that_comes_from_outside_is_taken_for_html(tmp_path):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }} $x_"
    arms = {"a": {"label": evil, "overrides": [evil]}, "b": {}}
    matrix(tmp_path, arms, seeds=[0])
    for arm in arms:
        config = {"algorithm": {"text": arm + evil}}
        steps = {1: {"critic/rewards/mean": 1.0, evil: 2.0}}
        run(tmp_path, arm, 0, steps, 1, config, command=["x", evil], commit=evil)
        (tmp_path / arm / "seed0/log.txt").write_text(evil)
    report.write(tmp_path, extra=[evil])  # the pictures take such labels too
    page = Page((tmp_path / "report/index.html").read_text())
    assert len(page.scripts) == 2 and not any("onerror" in a or a == "x" for a in page.addresses)
    assert page.drawn["arms"][0]["label"] == evil
    assert page.drawn["charts"][-1]["title"] == evil
    assert page.text.count(evil) >= 5 and "49" not in page.text


def test_unfinished_and_missing_runs_are_named_and_left_out_of_the_results(tmp_path):
    matrix(tmp_path, ["a", "b", "c"], seeds=[0, 1, 2])
    run(tmp_path, "a", 0, entropies(1, 2, 3), planned=3)
    run(tmp_path, "a", 1, entropies(9, 9), planned=3, tail='{"step": 3, "da')
    run(tmp_path, "b", 0, entropies(1, 2, 3))  # no record: as far as the longest run
    run(tmp_path, "b", 1, entropies(1, 2))
    run(tmp_path, "c", 2, entropies(1, 2, 3))
    for arm, seed in (("a", 0), ("a", 1)):
        evaluated(tmp_path, arm, seed, [[True, False]])
    page = collect(tmp_path)
    assert page.status == {
        **{"a/seed0": "finished", "a/seed1": "unfinished", "a/seed2": "missing"},
        **{"b/seed0": "finished", "b/seed1": "unfinished", "b/seed2": "missing"},
        **{"c/seed0": "missing", "c/seed1": "missing", "c/seed2": "finished"},
    }
    found = {(r.arm, r.metric): r for r in page.results}
    assert found["a", "final entropy"].seeds == 1
    assert found["a", "final entropy"].estimate.mean == 2.0
    assert found["b", "avg@2"].estimate is None
    text = page_of(tmp_path).text
    assert "4 of 9 runs are missing: a/seed2, b/seed2, c/seed0, c/seed1." in text
    assert "2 of 9 runs are unfinished: a/seed1, b/seed1." in text
    assert "without a record of command and config: b/seed0, b/seed1, c/seed2." in text
    assert "a/seed1: its evaluation is left out" in text


def test_arms_and_seeds_of_which_nothing_has_run_are_said_once(tmp_path):
    matrix(tmp_path, ["base", "a", "b", "c"], seeds=[0, 1])
    run(tmp_path, "a", 1, entropies(1, 2, 3))
    page = page_of(tmp_path)
    collected = collect(tmp_path)
    assert [arm.name for arm in collected.arms] == ["base", "a"]  # the baseline is shown to lack
    assert list(collected.status) == ["base/seed1", "a/seed1"]
    assert "2 of 4 arms have no run yet: b, c." in page.text
    assert "No run yet has seed 0." in page.text


def test_a_resumed_run_is_judged_by_its_last_start(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0])
    run(tmp_path, "a", 0, entropies(1, 2), planned=2)
    run(tmp_path, "a", 0, {3: {"actor/entropy": 3.0}}, planned=4, start=1)
    (row,) = collect(tmp_path).run_rows
    assert (row["status"], row["last_step"], row["planned_steps"], row["starts"]) == (
        *("unfinished", 3, 4, 2),
    )


def test_values_that_are_no_numbers_are_left_out_and_named(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0])
    run(tmp_path, "a", 0, entropies(1.0, math.nan, None, math.inf, 5.0), planned=5)
    page = page_of(tmp_path)
    assert "a/seed0: actor/entropy is no finite number at step 2, 3, 4." in page.text
    assert page.drawn["charts"][0]["x"] == [1, 5]


@pytest.mark.parametrize("planned", [None, 2, 3], ids=["not begun", "finished", "unfinished"])
def test_a_page_links_to_files_that_are_there(tmp_path, planned):
    matrix(tmp_path, ["a"], seeds=[0])
    if planned:
        run(tmp_path, "a", 0, entropies(1.0, 2.0), planned=planned)
        evaluated(tmp_path, "a", 0, [[True, False]])
    file = report.write(tmp_path)
    addresses = Page(file.read_text()).addresses
    assert len(addresses) == 9 + {None: 0, 2: 2, 3: 1}[planned]  # CSVs and pictures
    assert all((file.parent / address).is_file() for address in addresses)


@pytest.mark.parametrize("pieces", ["nothing", "record only", "empty metrics", "broken files"])
def test_a_comparison_that_has_hardly_begun(tmp_path, pieces):
    matrix(tmp_path, ["a", "b"])
    if pieces == "record only":
        run(tmp_path, "a", 0, {}, planned=3)
        (tmp_path / "a/seed0/metrics/000.jsonl").unlink()
    if pieces == "empty metrics":
        run(tmp_path, "a", 0, {})
    if pieces == "broken files":
        run(tmp_path, "a", 0, entropies(1.0), planned=1)
        (tmp_path / "a/seed0/metrics/000.yaml").write_text("config: [")
        evaluated(tmp_path, "a", 0, [[True]])
        (tmp_path / "a/seed0/evaluation/c.parquet").write_bytes(b"no parquet")
    file = report.write(tmp_path)
    page = Page(file.read_text())
    if pieces == "broken files":
        assert "a/seed0: c.parquet is left out" in page.text
    else:
        assert "No run is finished." in page.text and "No run has logged anything" in page.text
        assert not list(file.parent.glob("figures/*"))


def test_evaluations_of_other_problems_are_not_paired(tmp_path):
    matrix(tmp_path, ["a", "b"], seeds=[0])
    for arm, problems in (("a", 3), ("b", 2)):
        run(tmp_path, arm, 0, entropies(1.0), planned=1)
        evaluated(tmp_path, arm, 0, np.ones((problems, 2), bool))
    page = collect(tmp_path)
    found = {(r.arm, r.metric): r for r in page.results}
    assert found["a", "avg@2"].problems == 3 and found["b", "avg@2"].difference is None
    assert any("2 problems are not the 3" in check for check in page.warnings)


def test_only_settings_that_differ_are_listed_and_names_are_none(tmp_path):
    matrix(tmp_path, ["a", "b", "c"], seeds=[0, 1])
    for arm, beta in (("a", 0.5), ("b", 0.7), ("c", 0.5)):
        for seed in (0, 1):
            model = {"model": {"path": f"/somewhere/{arm}"}}
            config = {"algorithm": {"beta": beta, "same": 1}, "actor_rollout_ref": model}
            files = {"actor_rollout_ref.model.path": "0123456789abcdef"}
            run(tmp_path, arm, seed, entropies(1.0), 1, config, files=files)
    page = collect(tmp_path)
    assert page.config == {"algorithm.beta": {"a": "0.5", "b": "0.7", "c": "0.5"}}
    assert page.identical_arms == [["a", "c"]] and page.warnings == []
    files = {"actor_rollout_ref.model.path": "another"}
    run(tmp_path, "c", 1, entropies(1.0), 1, config, files=files)
    page = collect(tmp_path)
    assert page.identical_arms == []
    assert any(check.startswith("c: its seeds differ in") for check in page.warnings)


def test_packages_and_commits_that_differ_are_named(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0, 1])
    run(tmp_path, "a", 0, entropies(1.0), 1, packages={"verl": "0.9.1"})
    run(tmp_path, "a", 1, entropies(1.0), 1, packages={"verl": "0.9.2"}, commit="beef-dirty")
    checks = " ".join(collect(tmp_path).warnings)
    assert "Package verl differs: 0.9.1, 0.9.2." in checks
    assert "2 commits: beef-dirty, c0ffee" in checks and "no commit holds" in checks


def test_spread_of_reruns_and_of_seeds(tmp_path):
    # runs of two arms of one config: seed 0: 1, 3; seed 1: 6, 8
    matrix(tmp_path, ["a", "again"])
    for arm, values in (("a", (1.0, 6.0)), ("again", (3.0, 8.0))):
        for seed, value in enumerate(values):
            run(tmp_path, arm, seed, entropies(value), planned=1)
    (row,) = collect(tmp_path).spreads
    assert (row["arms"], row["metric"]) == ("a = again", "final entropy")
    assert (row["rerun_sd"], row["rerun_df"]) == (pytest.approx(math.sqrt(2)), 2)
    assert (row["seed_sd"], row["seed_df"]) == (pytest.approx(math.sqrt(12.5)), 2)


def test_seeds_that_have_the_same_difference_get_no_star(tmp_path):
    """Two seeds that are both 0.0625 above the baseline say nothing of the next seed."""
    matrix(tmp_path, ["a", "b"])
    for seed, value in enumerate((0.5, 0.25)):
        run(tmp_path, "a", seed, entropies(value), planned=1)
        run(tmp_path, "b", seed, entropies(value + 0.0625), planned=1)
    result = collect(tmp_path).results[1]
    assert result.difference == (0.0625, 0.0625, 0.0625)
    assert result.all_equal and not result.excludes_zero
    assert "| +0.062 (all equal) |" in collect(tmp_path).markdown()
    text = page_of(tmp_path).text
    assert "+0.062 (all equal)" in text and "★" not in text
    run(tmp_path, "b", 1, entropies(0.3126), planned=1)  # 0.0626, where the other seed has 0.0625
    assert collect(tmp_path).results[1].excludes_zero and "★" in page_of(tmp_path).text


def test_a_report_of_seeds_that_cancel_is_written(tmp_path):
    """Of one problem in 30 the baseline has 1 and 3 answers of 10 correct, the other 0 and 4."""
    matrix(tmp_path, ["grpo", "new"])
    counts = {("grpo", 0): 1, ("grpo", 1): 3, ("new", 0): 0, ("new", 1): 4}
    for (arm, seed), correct in counts.items():
        run(tmp_path, arm, seed, entropies(1.0), planned=1)
        correct_PN = np.ones((30, 10), bool)
        correct_PN[0] = np.arange(10) < correct
        evaluated(tmp_path, arm, seed, correct_PN)
    found = {(r.arm, r.metric): r for r in collect(tmp_path).results}
    # -0.1 and 0.1 at one of 30 problems: half width t(1, 0.975) 0.1 / 30 = 12.7062 / 300
    half = 12.7062 / 300
    assert found["new", "avg@10"].difference == pytest.approx((0, -half, half), abs=1e-6)


def test_costs_are_sums_of_the_logged_times_and_tokens(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0, 1])
    step = {"timing_s/step": 1800.0, "perf/total_num_tokens": 900}
    tested = {"timing_s/testing": 900.0}
    run(tmp_path, "a", 0, {1: step, 2: step | tested}, planned=2)
    run(tmp_path, "a", 1, {1: step}, planned=2)
    (row,) = collect(tmp_path).costs
    assert (row["finished_runs"], row["steps"], row["hours_per_run"]) == (1, 3, 1.25)
    assert (row["tokens_per_run"], row["tokens_per_second"]) == (1800, 0.5)


def test_the_lines_of_24_arms_can_be_told_apart():
    styles = [style(Arm(str(i), "r", "p", str(i)), i) for i in range(24)]
    assert len({(one["colour"], one["dash"]) for one in styles}) == 24


def test_long_runs_are_thinned_by_means(tmp_path):
    assert binned({0: 9.0, 1: 1.0, 2: 3.0, 3: 5.0}, 2) == {-1: 9.0, 0: 2.0, 1: 5.0}
    matrix(tmp_path, ["a"], seeds=[0])
    steps = 2 * POINTS
    run(tmp_path, "a", 0, entropies(*range(1, steps + 1)), planned=steps)
    page = page_of(tmp_path)
    (chart,) = [c for c in page.drawn["charts"] if c["title"] == "Policy entropy"]
    assert len(chart["x"]) == POINTS
    assert chart["lines"][0]["mean"] == chart["x"] == [i + 0.5 for i in range(1, steps, 2)]
    assert "A point is the mean of 2 steps" in page.text


def test_more_metrics_by_name_or_pattern(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0])
    run(tmp_path, "a", 0, {1: {"clip_entropy/bound_upper": 0.2, "clip_entropy/bound_lower": 0.1}})
    charts = page_of(tmp_path, "clip_entropy/bound_*").drawn["charts"]
    assert [c["lines"][0]["mean"] for c in charts] == [[0.1], [0.2]]


def test_a_metric_that_is_asked_for_twice_has_one_chart_and_one_column(tmp_path):
    matrix(tmp_path, ["a"], seeds=[0])
    run(tmp_path, "a", 0, {1: {"critic/rewards/mean": 0.5, "critic/rewards/max": 1.0}}, planned=1)
    report.write(tmp_path, extra=["critic/*", "critic/rewards/max"])
    header, *_ = (tmp_path / "report/data/curves.csv").read_text().splitlines()
    assert header == "arm,seed,step,critic/rewards/mean,critic/rewards/max"


@pytest.mark.parametrize(
    ("name", "near"),
    [("actor/entropie", "actor/entropy"), ("q*", "actor/*, critic/*")],
)
def test_a_metric_that_no_run_has_logged_is_refused(tmp_path, capsys, name, near):
    matrix(tmp_path, ["a", "b"], seeds=[0])
    assert not collect(tmp_path, [name]).charts  # the page says that nothing is logged yet
    run(tmp_path, "a", 0, {1: {"actor/entropy": 0.5, "critic/rewards/mean": 0.5}}, planned=1)
    assert report.main([str(tmp_path), "--metric", name]) == 2
    assert capsys.readouterr().err == (
        f"error: --metric {name} is not allowed, as no run has logged it: give a metric or a "
        f"pattern of several, such as {near}.\n"
    )
    assert not (tmp_path / "report").exists()


def test_a_run_with_another_entropy_is_left_out_by_its_name(tmp_path):
    """Its loss is a sum over tokens, and so is its actor/entropy."""
    matrix(tmp_path, ["a", "b"], seeds=[0, 1])
    sums = {"actor_rollout_ref": {"actor": {"loss_agg_mode": "seq-mean-token-sum"}}}
    both = {"actor/entropy": 40.0, "diagnostics/entropy/all": 0.5}
    for arm in "ab":
        for seed in (0, 1):
            row = {"actor/entropy": 80.0} if (arm, seed) == ("b", 1) else both
            run(tmp_path, arm, seed, {1: row}, planned=1, config=sums)
    run(tmp_path, "a", 1, {0: {"val-core/x/acc/mean@1": 0.5}}, planned=1, config=sums)
    page = collect(tmp_path)
    (chart,) = [chart for chart in page.charts if chart["title"] == "Policy entropy"]
    assert [line["mean"] for line in chart["lines"]] == [[0.5], [0.5]] and chart["note"] == ""
    assert [line["n"] for line in chart["lines"]] == [[1], [1]]
    (final,) = [metric for metric in page.metrics if metric.name == "final entropy"]
    assert final.values == {"a": {0: [0.5]}, "b": {0: [0.5]}}
    assert [text for text in page.warnings if "left out" in text] == [
        "b/seed1: left out of the policy entropy, which shows diagnostics/entropy/all; "
        "actor/entropy counts with loss_agg_mode=token-mean only."
    ]
    # no other entropy: none is shown
    run(tmp_path, "a", 0, {1: {"actor/entropy": 40.0}}, planned=1, config=sums)
    run(tmp_path, "b", 0, {1: {"actor/entropy": 40.0}}, planned=1, config=sums)
    page = collect(tmp_path, ["actor/entropy"])
    assert [chart["title"] for chart in page.charts] == [
        "Held-out accuracy: x/acc/mean@1",
        "actor/entropy",
    ]
    assert any(text.startswith("a/seed0, b/seed0, b/seed1: left out") for text in page.warnings)


def test_a_chart_names_an_entropy_that_is_not_the_preferred_one(tmp_path):
    matrix(tmp_path, ["a", "b"], seeds=[0])
    run(tmp_path, "a", 0, {1: {"actor/entropy": 0.5, "diagnostics/entropy/all": 0.5}}, planned=1)
    run(tmp_path, "b", 0, entropies(0.25), planned=1)
    page = collect(tmp_path)
    (chart,) = [chart for chart in page.charts if chart["title"] == "Policy entropy"]
    assert chart["note"] == "actor/entropy"
    assert [line["mean"] for line in chart["lines"]] == [[0.5], [0.25]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"no matrix\.yaml"),
        ("", "names no arms"),
        ("arms: [", r"matrix\.yaml is not a yaml file"),
        ("seeds: [0]\narms: {a: {}}", "a must name its recipe and its preset"),
        (f"seeds: []\n{ARMS}", r"seeds=\[\] is not allowed: use a list of different whole numbers"),
        (f"baseline: x\nseeds: [0]\n{ARMS}", "baseline=x does not exist: It is one of a"),
    ],
)
def test_a_folder_that_is_no_comparison(tmp_path, text, message):
    if text is not None:
        (tmp_path / "matrix.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        collect(tmp_path)


def test_the_table_for_a_readme_says_what_the_csv_says(small):
    out, _ = small
    lines = (out / "report/data/results.md").read_text().splitlines()
    heads, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    csv_rows = {(r["arm"], r["metric"]): r for r in rows(out / "report/data/results.csv")}
    names = {arm.label: arm.name for arm in read_matrix(out).arms}
    assert heads[0] == "method" and {"avg@4", "pass@2", "final entropy"} <= {*heads}
    assert len(body) > 1
    for label, seeds, *cells in body:
        for metric, cell in zip(heads[2::2], cells[::2], strict=True):
            if cell:
                assert csv_rows[names[label], metric]["seeds"] in seeds.split(" to ")
                assert cell.startswith(f"{float(csv_rows[names[label], metric]['mean']):.3f} [")


def test_tables_of_results_within_a_text(small, tmp_path):
    out, _ = small
    file = tmp_path / "README.md"
    places = [
        "<!-- results -->\nold\n<!-- end of results -->",
        "<!-- results: other -->\n<!-- end of results -->",
    ]
    file.write_text("# Title\n{}\nbetween\n{}\nafter\n".format(*places))
    report.write(out, into=[file])
    table = (out / "report/data/results.md").read_text()
    of_other = "".join(line for line in table.splitlines(True) if not line.startswith("| base"))
    assert len(of_other) < len(table)
    assert file.read_text() == (
        f"# Title\n<!-- results -->\n{table}<!-- end of results -->\nbetween\n"
        f"<!-- results: other -->\n{of_other}<!-- end of results -->\nafter\n"
    )
    again = file.read_text()
    report.write(out, into=[file])
    assert file.read_text() == again
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nothing", "has 0 lines"),
        ("<!-- results -->\nno end", "1 lines .* and 0 lines"),
        ("<!-- results -->\nno end\n<!-- results -->\n<!-- end of results -->\n", "has 2 lines"),
        ("<!-- results: othre -->\n<!-- end of results -->", "did you mean other"),
    ],
)
def test_a_text_without_a_sound_place_is_left_as_it_is(small, tmp_path, text, message):
    file = tmp_path / "README.md"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        report.write(small[0], tmp_path / "report", into=[file])
    assert file.read_text() == text and not (tmp_path / "report").exists()


def test_another_baseline(small, tmp_path):
    out, correct = small
    report.write(out, tmp_path, baseline="other")
    found = {(r["arm"], r["metric"]): r for r in rows(tmp_path / "data/results.csv")}
    paired = np.mean([correct["base", s].mean() - correct["other", s].mean() for s in (0, 1)])
    assert float(found["base", "avg@4"]["difference"]) == pytest.approx(paired)
    assert found["other", "avg@4"]["difference"] == ""
    with pytest.raises(ValueError, match="did you mean other"):
        report.write(out, tmp_path, baseline="othre")


def test_a_final_metric_is_one_entry(small, tmp_path, monkeypatch):
    out, correct = small
    mine = FinalMetric("first of {n}", "correct", lambda correct_PN: correct_PN[:, 0])
    monkeypatch.setattr("recipe.report.results.FINAL_METRICS", (*FINAL_METRICS, mine))
    report.write(out, tmp_path)
    found = {(r["arm"], r["metric"]): r for r in rows(tmp_path / "data/results.csv")}
    first = np.mean([correct["other", seed][:, 0].mean() for seed in (0, 1)])
    assert float(found["other", "first of 4"]["mean"]) == pytest.approx(first)
    text = Page((tmp_path / "index.html").read_text()).text
    assert "first of 4" in text and f"{first:.3f}" in text


def test_a_majority_is_of_the_samples_that_all_runs_share():
    """It is of all samples of a run, so that one of 4 and one of 2 are no pair."""

    def names(*samples):
        by_seed = {seed: np.ones((3, n), bool) for seed, n in enumerate(samples)}
        columns = ("correct", "majority_correct")
        return [m.name for m in final_metrics([], {c: {"b": {"a": by_seed}} for c in columns})]

    assert names(4, 4) == ["avg@4", "pass@2", "majority@4"]
    assert names(4, 2) == ["avg@2"]


def test_evaluations_of_other_settings_are_named_and_left_out(tmp_path):
    matrix(tmp_path, ["a", "b", "c"], seeds=[0])
    for arm, samples in (("a", 4), ("b", 4), ("c", 2)):
        run(tmp_path, arm, 0, entropies(1.0), planned=1)
        evaluated(tmp_path, arm, 0, np.ones((3, samples), bool))
        file = tmp_path / arm / "seed0/evaluation/b.json"
        file.write_text(json.dumps({"settings": {"samples": samples}}))
    page = collect(tmp_path)
    rows_of_b = {(r.arm, r.metric): r.seeds for r in page.results if r.group == "b"}
    assert rows_of_b["b", "majority@4"] == 1 and rows_of_b["c", "majority@4"] == 0
    sentence = "c/seed0: b.parquet is left out: it was evaluated with samples=2 (most runs: 4)."
    assert page.warnings.count(sentence) == 1


def test_evaluations_of_an_earlier_checkpoint_are_left_out_and_those_without_a_record_named(
    tmp_path,
):
    matrix(tmp_path, ["a", "b", "c"], seeds=[0])
    for arm, step in (("a", 2), ("b", 1), ("c", None)):
        run(tmp_path, arm, 0, entropies(1.0, 1.0), planned=2)
        (tmp_path / arm / "seed0/latest_checkpointed_iteration.txt").write_text("2")
        evaluated(tmp_path, arm, 0, np.ones((3, 4), bool))
        if step:
            record = {
                "settings": {"samples": 4},
                "model": f"/x/global_step_{step}/actor/huggingface",
            }
            (tmp_path / arm / "seed0/evaluation/b.json").write_text(json.dumps(record))
    page = collect(tmp_path)
    seeds = {(r.arm, r.metric): r.seeds for r in page.results if r.group == "b"}
    assert [seeds[arm, "avg@4"] for arm in "abc"] == [1, 0, 1]
    assert page.warnings.count(
        "b/seed0: b.parquet is left out: it is of the checkpoint of step 1, and the last is of "
        "step 2."
    ) == 1  # fmt: skip
    assert page.warnings.count(
        "c/seed0: b.parquet has no record of its settings (.json), and is taken to have those of "
        "most runs."
    ) == 1  # fmt: skip


def test_a_run_whose_last_row_is_lost_has_no_final_value_of_its_training(tmp_path):
    """verl saves before it validates and logs; a resumed start then finds nothing to do."""
    matrix(tmp_path, ["a", "b"])
    for arm, seed, steps in (("a", 0, 3), ("a", 1, 3), ("b", 0, 3), ("b", 1, 2)):
        run(tmp_path, arm, seed, entropies(*[1.0, 0.8, 0.2][:steps]), planned=3)
        (tmp_path / arm / f"seed{seed}/latest_checkpointed_iteration.txt").write_text("3")
    (tmp_path / "b/seed1/metrics/000.end").write_text("finished")
    page = collect(tmp_path)
    assert page.status == dict.fromkeys(page.status, "finished")
    of_b = next(r for r in page.results if r.arm == "b" and "entropy" in r.metric.lower())
    assert of_b.seeds == 1 and of_b.estimate.mean == pytest.approx((1.0 + 0.8 + 0.2) / 3)
    assert (
        "b/seed1: its metrics end at step 2, before its last checkpoint (step 3): it has no final "
        "value of its training." in page.warnings
    )


def test_an_interrupted_report_leaves_no_table_in_halves(tmp_path):
    def interrupted():
        yield ["a"]
        raise KeyboardInterrupt

    file = tmp_path / "x.csv"
    tables.write_csv(file, ["before"], [])
    with pytest.raises(KeyboardInterrupt):
        tables.write_csv(file, ["after"], interrupted())
    assert file.read_text() == "before\n" and [*tmp_path.iterdir()] == [file]


def test_files_that_an_older_version_has_named_do_not_make_a_run_another(tmp_path):
    """The second half of a name is missing there."""
    matrix(tmp_path, ["a", "b"], seeds=[0, 1])
    name = "0123456789" * 4
    for arm, seed, text in (("a", 0, name[:20]), ("a", 1, name), ("b", 0, name), ("b", 1, name)):
        files = {"data.train_files[0]": text}
        run(tmp_path, arm, seed, entropies(1.0), 1, files=files)
    page = collect(tmp_path)
    assert page.identical_arms == [["a", "b"]] and page.warnings == [] and page.config == {}
    assert page.run_rows[1]["files"] == f"data.train_files[0]={name}"
    run(tmp_path, "b", 1, entropies(1.0), 1, files={"data.train_files[0]": "9" + name[1:]})
    assert collect(tmp_path).identical_arms == []


def test_a_metric_whose_column_is_missing_or_samples_too_few_is_left_out():
    two_samples = {"b": {"a": {0: np.array([[True, False]])}}}
    assert [m.name for m in final_metrics([], {"correct": two_samples})] == ["avg@2"]


def test_a_label_cannot_break_the_markdown_table(tmp_path):
    label = "a | b\nc"
    matrix(tmp_path, {"a": {"label": label}, "b": {}}, seeds=[0])
    for arm in ("a", "b"):
        run(tmp_path, arm, 0, entropies(1.0), planned=1)
    lines = collect(tmp_path).markdown().splitlines()
    assert len(lines) == 4
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {5}
    assert lines[0] == r"| method | seeds | final entropy | to a \| b c |"
    assert lines[2].startswith(r"| a \| b c | 1 |")


def test_the_markdown_table_has_an_interval_where_the_page_has_one(tmp_path):
    """Of one number there is none, and none of several that are all equal."""
    matrix(tmp_path, ["a", "b", "c"], seeds=[0, 1])
    for arm, values in {"a": [0.5], "b": [0.5, 0.5], "c": [0.25, 0.75]}.items():
        for seed, value in enumerate(values):
            run(tmp_path, arm, seed, entropies(value), planned=1)
    page = collect(tmp_path)
    *_, a, b, c = page.markdown().splitlines()
    assert a == "| a | 1 | 0.500 | |"
    # one seed is paired with a's
    assert b == "| b | 2 | 0.500 (all equal) | +0.000 |"
    # 0.5 +- 12.706 * 0.25, by Student's t with 1 degree of freedom
    assert c == "| c | 2 | 0.500 [-2.677, 3.677] | -0.250 |"
    assert "0.500]" not in a + b and "(all equal)" in render(page)


LABELS = [r"a\|b", "\\", "|", "a\r\n|\n", "<b>|</b>", "&lt;", "$x$_", "_x"]


@pytest.mark.parametrize("label", LABELS)
def test_no_label_breaks_a_table_or_a_picture(tmp_path, label):
    matrix(tmp_path, {"a": {"label": label}, "b": {}}, seeds=[0])
    for arm in ("a", "b"):
        run(tmp_path, arm, 0, entropies(1.0), planned=1)
    report.write(tmp_path)
    assert (tmp_path / "report/figures/charts.png").stat().st_size > 1000
    assert "<b>|" not in (tmp_path / "report/index.html").read_text()
    lines = collect(tmp_path).markdown().splitlines()
    # a | ends a cell unless an odd number of \ is before it
    cells = {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}
    assert len(lines) == 4 and cells == {5}


@pytest.mark.parametrize(
    "line",
    [
        "[1]",
        "3",
        '"text"',
        "null",
        "[" * 100_000,
        '{"step": 1}',
        '{"step": true, "data": {"actor/entropy": 1}}',
        '{"step": 2, "data": {"critic/rewards/mean": {"a": [1]}, "timing_s/step": "x"}}',
        '{"step": 2, "data": {"critic/rewards/mean": [1, 2], "perf/total_num_tokens": {}}}',
        '{"step": 2, "data": {"critic/rewards/mean": ' + "9" * 400 + "}}",
        '{"step": 2, "data": {"critic/rewards/mean": NaN}}',
    ],
    ids=range(11),
)
def test_a_line_of_metrics_that_is_no_row_ends_neither_page_nor_picture(tmp_path, line):
    matrix(tmp_path, {"a": {}}, seeds=[0])
    run(tmp_path, "a", 0, entropies(1.0, 2.0), planned=2)
    with (tmp_path / "a/seed0/metrics/000.jsonl").open("a") as file:
        file.write(line + "\n")
    report.write(tmp_path)
    plot.draw(tmp_path / "a/seed0")
    assert (tmp_path / "a/seed0/curve.png").is_file()


def test_the_command_ends_with_a_sentence(small, tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"error: {tmp_path} has no matrix.yaml: is it the folder of a comparison?\n"
    )
    assert report.main([str(small[0]), "--to", str(tmp_path / "x")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'x' / 'index.html'}\n"


def test_pass_at_k_of_training_groups_length_and_truncation_are_charted(tmp_path):
    logged = {
        "diagnostics/groups/pass@2": "Training groups: pass@2",
        "diagnostics/groups/pass@8": "Training groups: pass@8",
        "diagnostics/length/correct": "Length of correct rollouts",
        "diagnostics/length/incorrect": "Length of incorrect rollouts",
        "diagnostics/length/truncated": "Truncated rollouts",
        "response_length/mean": "Response length",
    }
    matrix(tmp_path, ["a"], seeds=[0, 1])
    for seed in (0, 1):
        steps = {1: {name: seed + place for place, name in enumerate(logged)}}
        run(tmp_path, "a", seed, steps, 1)
    charts = {chart["title"]: chart for chart in page_of(tmp_path).drawn["charts"]}
    for place, title in enumerate(logged.values()):
        assert charts[title]["lines"][0]["mean"] == [0.5 + place]
    assert "diagnostics/groups/all_correct" not in charts
