"""The last policies' entropy: which values are kept, with made-up runs and no model."""

from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from scripts import load_script

LABELS = {"grpo": "GRPO | the baseline", "id": "ID", "od": "O<D"}


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The script, whose models are numbers: the entropy of a policy is that of its checkpoint."""
    script = load_script("studies/held_out_entropy.py")
    loaded = SimpleNamespace(from_pretrained=lambda model, **_: SimpleNamespace(eval=lambda: model))
    monkeypatch.setattr(script, "AutoModelForCausalLM", loaded)
    monkeypatch.setattr(script, "AutoTokenizer", loaded)
    monkeypatch.setattr(script, "read_problems", lambda file, task: [])
    monkeypatch.setattr(script, "model_of", lambda checkpoint: (checkpoint, None))

    def solve(model, *_):
        with open(f"{model}/entropy") as file:
            return 0, 10 * float(file.read()), 10

    monkeypatch.setattr(script, "solve", solve)
    arms = {name: {"recipe": "r", "preset": "p", "label": LABELS[name]} for name in LABELS}
    matrix = {"title": "t", "baseline": "grpo", "seeds": [0, 1], "arms": arms}
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    for place, name in enumerate(LABELS):
        for seed in (0, 1):
            write_run(tmp_path / name / f"seed{seed}", 0.1 * (place + 1) + seed)
    return script


def write_run(folder, entropy: float) -> None:
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "metrics/000.jsonl").write_text('{"step": 1, "data": {}}\n')
    checkpoint = folder / "global_step_1"
    checkpoint.mkdir(exist_ok=True)
    (folder / "latest_checkpointed_iteration.txt").write_text("1")
    (checkpoint / "entropy").write_text(str(entropy))


def kept(out) -> dict:
    rows = pd.read_csv(out / "held_out_entropy.csv")
    assert list(rows.columns) == ["arm", "seed", "value"]
    return {(arm, seed): value for arm, seed, value in rows.itertuples(index=False)}


def test_some_arms_leave_the_values_of_the_others(study, tmp_path, capsys):
    study.command([str(tmp_path)])
    first = kept(tmp_path)
    assert first == pytest.approx(
        {
            **{("grpo", 0): 0.1, ("grpo", 1): 1.1, ("id", 0): 0.2, ("id", 1): 1.2},
            **{("od", 0): 0.3, ("od", 1): 1.3},
        }
    )
    write_run(tmp_path / "id/seed1", 5.0)
    study.command([str(tmp_path), "--arms", "id"])
    assert kept(tmp_path) == pytest.approx(first | {("id", 1): 5.0})
    (tmp_path / "grpo/seed0/latest_checkpointed_iteration.txt").unlink()
    (tmp_path / "grpo/seed0/global_step_1/entropy").unlink()
    study.command([str(tmp_path)])
    assert kept(tmp_path) == pytest.approx(first | {("id", 1): 5.0})


def test_without_a_finished_run_the_values_that_were_kept_stay(study, tmp_path):
    study.command([str(tmp_path)])
    before = (tmp_path / "held_out_entropy.csv").read_bytes()
    for file in tmp_path.glob("*/*/metrics/*"):
        file.unlink()
    with pytest.raises(ValueError, match="has no finished run of grpo, id whose checkpoint"):
        study.command([str(tmp_path), "--arms", "id"])
    assert (tmp_path / "held_out_entropy.csv").read_bytes() == before


def test_a_label_ends_no_cell_of_the_table(study, tmp_path, capsys):
    study.command([str(tmp_path)])
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == r"| method | entropy | to GRPO \| the baseline |"
    assert [row.split(" | ")[0] for row in rows] == [r"| GRPO \| the baseline", "| ID", "| O&lt;D"]
