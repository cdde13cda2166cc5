"""A comparison of many methods on disk, with made-up numbers, for the report and the console."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]


def methods_of_the_study() -> dict[str, dict]:
    """Returns the 24 arms of the CPU study, with their labels."""
    return yaml.safe_load((ROOT / "studies/study_cpu.yaml").read_text())["arms"]


def write_comparison(
    out: Path, arms: dict[str, dict], seeds: int = 3, steps: int = 40, problems: int = 20
) -> None:
    """Writes matrix.yaml, and every run's metrics, record and evaluation, in which methods differ a
    little and seeds a little less."""
    out.mkdir(parents=True)
    values = {"title": "Made up", "baseline": next(iter(arms)), "seeds": list(range(seeds))}
    (out / "matrix.yaml").write_text(yaml.safe_dump(values | {"arms": arms}, sort_keys=False))
    for place, name in enumerate(arms):
        for seed in range(seeds):
            random = np.random.default_rng((place, seed))
            write_run(out / name / f"seed{seed}", random, 0.4 + 0.4 * place / len(arms), steps)
            correct = random.random((problems, 16)) < 0.3 + 0.2 * place / len(arms)
            frame = pd.DataFrame({"correct": correct.ravel()})
            frame["index"], frame["sample"] = np.divmod(np.arange(correct.size), 16)
            frame["prompt_id"] = [f"p{index}" for index in frame["index"]]
            frame["majority_correct"] = np.repeat(correct.mean(1) > 0.5, 16)
            frame["tokens"], frame["truncated"] = 20, False
            folder = out / name / f"seed{seed}/evaluation"
            folder.mkdir()
            frame.to_parquet(folder / "made_up.parquet")


def write_run(folder: Path, random: np.random.Generator, reach: float, steps: int) -> None:
    """Writes a finished run whose reward rises towards `reach` while its entropy falls."""
    (folder / "metrics").mkdir(parents=True)
    lines = []
    for step in range(1, steps + 1):
        risen = 1 - np.exp(-step / 12)
        data = {
            "critic/rewards/mean": 0.3 + (reach - 0.3) * risen + 0.03 * random.standard_normal(),
            "actor/entropy": 1.3 - reach * risen + 0.02 * random.standard_normal(),
            "actor/pg_clipfrac": 0.02 * random.random(),
            "actor/grad_norm": 1 + 0.2 * random.random(),
            "response_length/mean": 15 + 2 * random.random(),
            "timing_s/step": 4 + random.random(),
            "perf/total_num_tokens": 7000,
        }
        if step % 10 == 0:
            data["val-core/made_up/acc/mean@1"] = 0.3 + (reach - 0.35) * risen
            data["timing_s/testing"] = 2.0
        lines.append(json.dumps({"step": step, "data": data}) + "\n")
    (folder / "metrics/000.jsonl").write_text("".join(lines))
    record = {"config": {"trainer": {"total_training_steps": steps}}}
    (folder / "metrics/000.yaml").write_text(yaml.safe_dump(record))
