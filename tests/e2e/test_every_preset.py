"""One real training step per preset, and its loss by hand: `update_presets.py` says what is real.

A step has two updates. At the first the policy is the one that sampled: every ratio is 1, every KL
0, and a loss is the mean of -A, but for the methods of VALUE_AT_ONE. At the second the ratios have
left the clip bounds; there PPO's term and its clipped share are compared for every preset that has
them with constant bounds, and the terms of CISPO, DPPO (TV) and UP.
"""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from builders import methods
from marks import TRAINING_RUN
from torch import Tensor

HERE = Path(__file__).parent
LIMIT = 600  # seconds for all presets; seen: 60
LENGTH = 24  # data.max_response_length, by which verl divides in seq-mean-token-sum-norm

pytestmark = TRAINING_RUN
METHODS = [pytest.param(method, id=str(method)) for method in methods()]


@pytest.fixture(scope="module")
def steps(tmp_path_factory, small) -> Path:
    folder = tmp_path_factory.mktemp("presets")
    paths = f"{HERE.parent}:{HERE}:{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            [sys.executable, HERE / "update_presets.py", *small, folder],
            env={**os.environ, "PYTHONPATH": paths},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=LIMIT,
        )
    assert done.returncode == 0, (folder / "log.txt").read_text()[-4000:]
    return folder


class Update:
    """One of the two updates: (B, T) tensors of its rows, and what verl has logged of it."""

    def __init__(self, step: dict, number: int):
        half = len(step["advantages"]) // 2
        rows = slice(number * half, (number + 1) * half)
        self.mask = step["response_mask"][rows].bool()
        self.A, self.log_prob = step["advantages"][rows], step["log_prob"][rows]
        self.ratio = (self.log_prob - step["old_log_probs"][rows]).exp()
        self.mode = step["actor"]["loss_agg_mode"]
        self.low, self.high, self.c = (
            step["actor"][f"clip_ratio_{name}"] for name in ("low", "high", "c")
        )
        self.logged = {
            name.rpartition("/")[2]: values[number]
            for name, values in step["updates"].items()
            if values
        }

    def mean(self, loss: Tensor) -> float:
        """By actor.loss_agg_mode."""
        loss = loss * self.mask
        if self.mode == "token-mean":
            return (loss.sum() / self.mask.sum()).item()
        if self.mode == "seq-mean-token-mean":
            return (loss.sum(1) / self.mask.sum(1)).mean().item()
        assert self.mode == "seq-mean-token-sum-norm"
        return (loss.sum(1) / LENGTH).mean().item()


def load(folder: Path, method: object) -> dict:
    return torch.load(folder / f"{method}.pt", weights_only=True)


# ---- the methods whose loss is not -A where the ratio is 1 ---------------------------------------

VALUE_AT_ONE = {
    # -sg(clip(r)) A log pi, and for DPPO -sg(r) A log pi
    **dict.fromkeys(("cispo", "dppo_tv", "dppo_kl"), lambda u: -u.A * u.log_prob),
    # sigmoid(tau (r - 1)) 4 / tau, tau 1 for A > 0 and 1.05 else
    "sapo": lambda u: -u.A * torch.where(u.A > 0, 2 / 1.0, 2 / 1.05),
}
# they leave tokens out, or weigh them, by other values than the ratio; their own tests have them
BY_OTHER_VALUES = {
    "clip_entropy-clip_cov",
    "clip_entropy-steer",
    "semantic_curriculum-clip_cov",
    "semantic_curriculum-high_entropy_mask",
}


@pytest.mark.parametrize("method", METHODS)
def test_a_real_step_moves_the_weights_by_finite_numbers(method, steps):
    step = load(steps, method)
    assert step["metrics"] and all(math.isfinite(value) for value in step["metrics"].values())
    for norm in step["updates"]["grad_norm"]:
        assert math.isfinite(norm) and norm > 1e-3
    assert step["moved"] > 1e-3  # AdamW at a rate of 2e-3, twice
    # the policy that sampled is the one that trains
    assert step["metrics"]["training/rollout_probs_diff_max"] < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_the_first_update_s_loss_is_the_mean_of_minus_a(method, steps):
    step = load(steps, method)
    update = Update(step, 0)
    ratio = update.ratio[update.mask]
    # a second draw's order of rows puts them together differently in the two forward passes
    atol = 1e-5 if step["before"] else 0
    torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=0, atol=atol)
    if str(method) in BY_OTHER_VALUES:
        assert math.isfinite(update.logged["pg_loss"])
        return
    loss = VALUE_AT_ONE.get(step["loss"]["loss_mode"], lambda u: -u.A)(update)
    assert update.logged["pg_loss"] == pytest.approx(update.mean(loss), rel=1e-5, abs=1e-6)


# ---- each method acts ----------------------------------------------------------------------------

# presets that are one method, or that change nothing here: no group is without a signal
ONE_METHOD = [
    ["asymgrpo-grpo_entropy_adv", "semantic_curriculum-entropy_advantage"],
    [
        *("clip_entropy-entropy_bonus", "entropy_control-constant"),
        "semantic_curriculum-entropy_bonus",
    ],
    [
        *("clip_entropy-grpo", "entropy_control-grpo", "prompt_sampling-dynamic_sampling"),
        *("prompt_sampling-grpo", "semantic_curriculum-grpo"),
    ],
]


def test_no_two_methods_do_the_same(steps):
    """A preset whose method had no effect would be another one to the last digit."""
    by_updates: dict[str, list[str]] = {}
    for method in methods():
        by_updates.setdefault(str(load(steps, method)["updates"]), []).append(str(method))
    assert sorted(sorted(same) for same in by_updates.values() if len(same) > 1) == ONE_METHOD


def test_what_says_that_a_method_acts_is_above_0(steps):
    said = ("variant_share", "changed_share", "coefficient", "positive_share")
    acting = set()
    for method in methods():
        metrics = load(steps, method)["metrics"]
        for name, value in metrics.items():
            if name.rpartition("/")[2] in said:
                assert value > 0, (method, name)
                acting.add(str(method))
    of = {
        "clip_entropy": ("bapo", "ce_gppo", "erc", "no_upper_bound", "steer", "up"),
        "entropy_control": ("cosine", "entrocraft", "entropic", "linear", "target"),
    }
    assert {f"{recipe}-{preset}" for recipe, presets in of.items() for preset in presets} <= acting


# ---- the second update ---------------------------------------------------------------------------


def ppo(u: Update) -> Tensor:
    """max(-A r, -A clip(r, 1 - low, 1 + high)), at A < 0 at most -A c."""
    clipped = torch.maximum(-u.A * u.ratio, -u.A * u.ratio.clamp(1 - u.low, 1 + u.high))
    return torch.where(u.A < 0, torch.minimum(clipped, -u.A * u.c), clipped)


def by_ppo_s_clip(step: dict) -> bool:
    """Whether the loss is PPO's clipped term within constant bounds, and nothing else."""
    loss = step["loss"]
    constant = loss["schedule"] == "static" and loss["variant"] == "ppo"
    return loss["loss_mode"] == "vanilla" or (loss["loss_mode"] == "dynamic_clip" and constant)


@pytest.mark.parametrize("method", METHODS)
def test_the_second_update_s_clipped_share_and_loss_are_ppo_s(method, steps):
    step = load(steps, method)
    u = Update(step, 1)
    if by_ppo_s_clip(step):
        over = ((u.A > 0) & (u.ratio > 1 + u.high)) | ((u.A < 0) & (u.ratio < 1 - u.low))
        share = ((over & u.mask).sum() / u.mask.sum()).item()
        assert share > 0.01 and u.logged["pg_clipfrac"] == pytest.approx(share, rel=1e-5)
        loss = ppo(u)
    elif step["loss"]["loss_mode"] == "dppo_tv":  # no gradient where |p - q| has grown too far
        gap = u.log_prob.exp() - u.log_prob.exp() / u.ratio
        kept = torch.where(u.A > 0, gap <= u.high, gap >= -u.low)
        share = ((~kept & u.mask).sum() / u.mask.sum()).item()
        assert share > 0.01 and u.logged["pg_clipfrac"] == pytest.approx(share, rel=1e-5)
        loss = -u.ratio * u.A * u.log_prob * kept
    elif step["loss"]["loss_mode"] == "cispo":  # no lower bound
        loss = -u.ratio.clamp(max=1 + u.high) * u.A * u.log_prob
    elif step["loss"]["variant"] == "up":  # for A > 0 the value of pi / sg(pi) is 1
        loss = torch.where(u.A > 0, -u.A, ppo(u))
    else:
        assert math.isfinite(u.logged["pg_loss"])
        return
    assert u.logged["pg_loss"] == pytest.approx(u.mean(loss), rel=1e-4, abs=1e-6)


def test_ppo_s_clip_is_compared_for_the_presets_that_have_it(steps):
    compared = {str(m) for m in methods() if by_ppo_s_clip(load(steps, m))}
    assert {
        *("asymgrpo-asymgrpo", "asymgrpo-w_reinforce", "asymgrpo-qae", "asymgrpo-rloo"),
        *("clip_entropy-clip_higher", "entropy_control-entrocraft", "entropy_control-target"),
        *("prompt_sampling-dapo", "prompt_sampling-variance", "semantic_curriculum-curriculum"),
    } <= compared
    assert not compared & {"clip_entropy-id", "clip_entropy-erc", "semantic_curriculum-sent"}
