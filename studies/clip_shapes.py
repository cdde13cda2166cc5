"""ID, DID and OD against fixed clipping, by real runs: `python studies/clip_shapes.py`.

Runs `recipe/clip_entropy/run_cpu.sh` for each arm and seed (a finished run is not repeated), then
samples each last checkpoint on the held-out problems and writes, into --out, `entropy.png` and
`results.md`: accuracy and pass@8 with the difference to GRPO and its interval (bootstrap over seeds
and problems, paired).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import comb
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from recipe import plot
from recipe.cpu.solving import read_problems, solve
from recipe.experiment.run import RunFolder

ROOT = Path(__file__).resolve().parent.parent
SAMPLES, K = 32, 8
LABELS = {"grpo": "GRPO", "clip_higher": "Clip-Higher", "id": "ID", "did": "DID", "od": "OD"}


def run(arm: str, seed: int, steps: int, folder: Path, overrides: list[str]) -> None:
    last = folder / f"global_step_{steps}/actor/huggingface/model.safetensors"
    if last.is_file():
        return
    environment = {
        **os.environ,
        **{"PRESET": arm, "SEED": str(seed), "STEPS": str(steps), "CKPTS_DIR": str(folder)},
        **{"SAVE_FREQ": str(steps), "TEST_FREQ": "-1", "PYTHON": sys.executable},
    }
    command = [
        "bash",
        str(ROOT / "recipe/clip_entropy/run_cpu.sh"),
        "trainer.val_before_train=false",
    ]
    command += ["actor_rollout_ref.actor.checkpoint.save_contents=[model,optimizer,extra,hf_model]"]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log.txt").open("a") as log:
        done = subprocess.run([*command, *overrides], env=environment, stdout=log, stderr=log)
    if done.returncode or not last.is_file():
        raise RuntimeError(f"{arm}, seed {seed} failed, see {folder}/log.txt")


def judge(folder: Path, steps: int, problems) -> np.ndarray:
    """(problems, SAMPLES) bool."""
    kept = folder / "passed.npy"
    if not kept.is_file():
        from transformers import AutoModelForCausalLM

        from recipe.cpu.model import make_tokenizer

        model = folder / f"global_step_{steps}/actor/huggingface"
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        passed, _, _ = solve(loaded, make_tokenizer(), problems, SAMPLES, seed=0)
        np.save(kept, passed.numpy())
    return np.load(kept)


def pass_at_k(passed: np.ndarray, k: int) -> np.ndarray:
    """Unbiased, per problem: 1 - C(n - right, k) / C(n, k)."""
    n = passed.shape[1]
    table = np.array([1 - comb(n - right, k) / comb(n, k) for right in range(n + 1)])
    return table[passed.sum(1)]


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % by bootstrap of (seeds, problems): seeds and problems are drawn with replacement."""
    rng = np.random.default_rng(0)
    seeds, problems = values.shape
    means = [
        values[rng.integers(seeds, size=seeds)][:, rng.integers(problems, size=problems)].mean()
        for _ in range(4000)
    ]
    return tuple(np.quantile(means, [0.025, 0.975]))


def table(scores: dict[str, dict[str, np.ndarray]], runs: dict) -> str:
    lines = [
        "| arm | accuracy | to GRPO | pass@8 | to GRPO | entropy: first, lowest, highest, last "
        "| clipped tokens |"
    ]
    lines += ["| --- " * 7 + "|"]
    for arm, kinds in scores.items():
        cells = [LABELS[arm]]
        for kind, values in kinds.items():
            low, high = interval(values)
            cells.append(f"{values.mean():.3f} [{low:.3f}, {high:.3f}]")
            difference = values - scores["grpo"][kind]
            low, high = interval(difference)
            cells.append(
                "" if arm == "grpo" else f"{difference.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
            )
        curve = np.mean([plot.series(r, "actor/entropy")[1] for r in runs[arm]], axis=0)
        clip = np.mean([np.mean(plot.series(r, "actor/pg_clipfrac")[1]) for r in runs[arm]])
        cells.append(f"{curve[0]:.3f}, {curve.min():.3f}, {curve.max():.3f}, {curve[-1]:.3f}")
        cells.append(f"{clip:.2%}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(runs: dict, out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = (
        ("policy entropy", "actor/entropy", "nats a token"),
        ("reward of training rollouts", "critic/rewards/mean", "mean reward"),
        ("mean upper bound", "clip_entropy/bound_upper", "eps"),
        ("mean lower bound", "clip_entropy/bound_lower", "eps"),
    )
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    for axis, (title, metric, label) in zip(axes.flat, panels, strict=True):
        for color, (arm, seeds) in enumerate(runs.items()):
            curves = [plot.series(r, metric) for r in seeds]
            y = np.array([values for _, values in curves])
            axis.plot(curves[0][0], y.mean(0), color=f"C{color}", label=LABELS[arm])
            axis.fill_between(curves[0][0], y.min(0), y.max(0), color=f"C{color}", alpha=0.15)
        axis.set(title=title, xlabel="step", ylabel=label)
        axis.grid(alpha=0.3)
    axes.flat[0].legend(fontsize="small")
    figure.savefig(out, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", nargs="+", default=list(LABELS), choices=LABELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        help="runs at once; 2 with own Ray instances can wait for each other",
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/clip_shapes"))
    parser.add_argument("--test-file", type=Path, default=Path("~/data/arithmetic/test.parquet"))
    parser.add_argument("overrides", nargs="*", help="Hydra overrides for every run")
    known = parser.parse_intermixed_args()
    todo = [(arm, seed) for seed in known.seeds for arm in known.arms]

    def one(arm: str, seed: int) -> None:
        run(arm, seed, known.steps, known.out / f"{arm}-seed{seed}", known.overrides)

    with ThreadPoolExecutor(known.jobs) as pool:
        pending = [pool.submit(one, arm, seed) for arm, seed in todo]
        for done in tqdm(as_completed(pending), total=len(pending), unit="run"):
            if error := done.exception():
                pool.shutdown(cancel_futures=True)
                sys.exit(str(error))
    problems = read_problems(known.test_file.expanduser())
    scores, runs = {}, {}
    for arm in known.arms:
        folders = [known.out / f"{arm}-seed{seed}" for seed in known.seeds]
        passed = [judge(folder, known.steps, problems) for folder in folders]
        scores[arm] = {
            "accuracy": np.array([p.mean(1) for p in passed]),
            f"pass@{K}": np.array([pass_at_k(p, K) for p in passed]),
        }
        runs[arm] = [RunFolder(folder).metrics() for folder in folders]
    draw(runs, known.out / "entropy.png")
    text = table(scores, runs)
    (known.out / "results.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
