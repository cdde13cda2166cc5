"""Held-out curves of a comparison, on made-up metrics files with known answers."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scripts import load_script

ROOT = Path(__file__).parents[2]
ACCURACY = "val-core/t/acc/mean@1"


@pytest.fixture(scope="module")
def curves():
    return load_script("studies/curves.py")


@pytest.fixture
def out(tmp_path) -> Path:
    """GRPO and ID at seeds 0, 1, 2, validated at steps 0 and 2 of 2; ID's last run has stopped."""
    out = tmp_path / "out"
    arms = {
        name: {"recipe": "asymgrpo", "preset": "grpo", "label": name} for name in ("id", "grpo")
    }
    matrix = {"title": "t", "baseline": "grpo", "seeds": [0, 1, 2], "arms": arms}
    out.mkdir()
    (out / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    for arm, offsets in {"grpo": [0.0, 0.5, 0.25], "id": [0.1, 0.8, 0.9]}.items():
        for seed, offset in enumerate(offsets):
            folder = out / arm / f"seed{seed}/metrics"
            folder.mkdir(parents=True)
            last = 1 if (arm, seed) == ("id", 2) else 2
            rows = [
                {"step": 0, "data": {"diagnostics/held_out_entropy": 1.0, ACCURACY: 0.25}},
                {"step": 1, "data": {"actor/entropy": 1.0}},
                {"step": 2, "data": {"diagnostics/held_out_entropy": offset, ACCURACY: 2 * offset}},
            ]
            (folder / "000.jsonl").write_text(
                "".join(json.dumps(r) + "\n" for r in rows[: last + 1])
            )
            record = {"config": {"trainer": {"total_training_steps": 2}}}
            (folder / "000.yaml").write_text(yaml.safe_dump(record))
    return out


def test_values_of_finished_runs_and_their_lines(curves, out, capsys):
    curves.command([str(out)])
    kept = pd.read_csv(out / "curves.csv")
    assert list(kept.columns) == ["arm", "seed", "step", "entropy", "accuracy", "benchmark"]
    assert set(kept.benchmark) == {"t"}
    assert len(kept) == 5 * 2 and kept[kept.arm == "id"].seed.tolist() == [0, 0, 1, 1]
    assert kept[(kept.arm == "id") & (kept.step == 2)].accuracy.tolist() == [0.2, 1.6]
    matrix = curves.read_matrix(out)
    grpo, id_ = curves.lines_of(matrix, kept, "entropy", difference=False)
    assert (grpo.label, list(grpo.x), list(grpo.y)) == ("grpo", [0, 2], [1.0, 0.25])
    assert id_.y == pytest.approx([1.0, 0.45])
    # paired at seeds 0 and 1: 0.1 and 0.3; half width t(1, 0.975) 0.1414 / sqrt(2) = 1.2706
    (line,) = curves.lines_of(matrix, kept, "entropy", difference=True)
    assert line.label == "id" and line.y == pytest.approx([0, 0.2])
    assert (np.array(line.high) - line.y) == pytest.approx([0, 1.2706], abs=1e-4)
    assert capsys.readouterr().out == f"{out / 'curves.png'}\n"
    # the kept values give the same picture
    again = out / "again.png"
    values = ["--values", str(out / "curves.csv"), "--picture", str(again)]
    curves.command([str(out / "matrix.yaml"), *values])
    assert again.read_bytes() == (out / "curves.png").read_bytes()


def test_a_method_with_two_seeds_does_not_flatten_the_others(curves, out):
    matrix = curves.read_matrix(out)
    rows = [
        {"arm": arm, "seed": seed, "step": step, "entropy": seed + step, "accuracy": 0.5}
        for arm, seeds in {"grpo": 3, "id": 3, "od": 2}.items()
        for seed in range(seeds)
        for step in (0, 2)
    ]
    kept = pd.DataFrame(rows)
    matrix = replace(matrix, arms=(*matrix.arms, replace(matrix.arms[0], name="od", label="od")))
    for difference, labels in {True: ["id"], False: ["grpo", "id", "od"]}.items():
        lines = curves.lines_of(matrix, kept, "entropy", difference)
        assert [line.label for line in lines] == labels


def test_without_a_baseline_there_is_nothing_to_draw(curves, out):
    curves.command([str(out)])
    kept = (out / "curves.csv").read_bytes()
    for file in out.glob("grpo/*/metrics/*"):
        file.unlink()
    with pytest.raises(ValueError, match="no finished runs of grpo and of another method"):
        curves.command([str(out)])
    assert (out / "curves.csv").read_bytes() == kept  # of the runs that are gone


def without(out, metric, arm="*"):
    for file in out.glob(f"{arm}/*/metrics/*.jsonl"):
        file.write_text(file.read_text().replace(metric, "other"))


def titles(curves, monkeypatch, out) -> list[str]:
    drawn = []
    monkeypatch.setattr(curves, "draw_panels", lambda _, title, *more, **look: drawn.append(title))
    curves.command([str(out)])
    return drawn


def test_without_the_baseline_s_entropy_the_accuracy_alone_is_drawn(
    curves, out, monkeypatch, capsys
):
    without(out, "diagnostics/held_out_entropy", "grpo")
    assert titles(curves, monkeypatch, out) == [
        "held-out accuracy minus the baseline's, 95 % interval; t"
    ]
    first, second = capsys.readouterr().err.splitlines()
    missing = "not drawn, as grpo or all others lack it: held-out entropy"
    assert first == f"{missing}, nats per token"
    assert second == f"{missing} minus the baseline's, 95 % interval"


def test_a_seed_of_the_baseline_without_entropy_is_left_out_of_its_mean(curves, out):
    file = out / "grpo/seed2/metrics/000.jsonl"
    file.write_text(file.read_text().replace("diagnostics/held_out_entropy", "other"))
    matrix = curves.read_matrix(out)
    grpo, _ = curves.lines_of(matrix, curves.run_curves(matrix), "entropy", difference=False)
    assert grpo.label == "grpo" and grpo.y == [1.0, 0.25]  # of 0.0 and 0.5


def test_without_a_held_out_value_there_is_nothing_to_draw(curves, out):
    rows = [("grpo", 0, 2, np.nan, np.nan), ("id", 0, 2, 1.0, 0.5)]
    kept = pd.DataFrame(rows, columns=[*curves.COLUMNS])
    with pytest.raises(
        ValueError, match="grpo and another method have no held-out value in common"
    ):
        curves.draw(curves.read_matrix(out), kept)


def test_the_accuracy_is_of_one_benchmark_which_is_named(curves, out, monkeypatch, capsys):
    for file in out.glob("id/*/metrics/*.jsonl"):
        both = f'val-core/a/acc/mean@1": 9, "{ACCURACY}'
        file.write_text(file.read_text().replace(ACCURACY, both))
    assert titles(curves, monkeypatch, out)[-1] == (
        "held-out accuracy minus the baseline's, 95 % interval; t (and 1 more, not shown)"
    )
    kept = pd.read_csv(out / "curves.csv")
    assert kept[(kept.arm == "id") & (kept.step == 2)].accuracy.tolist() == [0.2, 1.6]


def test_other_values_are_one_sentence(curves, out, tmp_path):
    file = tmp_path / "values.csv"
    file.write_text("arm,seed,value\ngrpo,0,1\n")
    with pytest.raises(ValueError, match=r"values.csv has no column step, entropy, accuracy: give"):
        curves.command([str(out), "--values", str(file)])
