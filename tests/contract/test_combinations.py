"""Methods of three kinds in one run: an advantage, a policy loss, and a controller of the entropy.

Each pair of kinds is in some case. A case passes every check before a run, has the parts of its
methods, and takes one step of the trainer's hooks and one loss with a gradient.
"""

from __future__ import annotations

import builders
import numpy as np
import pytest
import torch
from builders import nested, parts_of, queue_of, step_of
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import get_adv_estimator_fn
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass

from recipe.core import actor_loss
from recipe.core.actor_loss import ENTROPY_COEFF, EXTRA_INFO
from recipe.core.clipped_term import CLIP_BOUNDS
from recipe.launch import preflight
from recipe.launch.compose import compose

# a preset of asymgrpo, one of clip_entropy, a controller of entropy_control
CASES = [
    ("w_reinforce", "up", "schedule"),
    ("qae", "ce_gppo", "target"),
    ("max_rl", "dcpo", "range"),
    ("asymgrpo", "erc", "pi"),
    ("nsr", "steer", "target"),
    ("psr", "archer", "range"),
    ("grpo", "id", "pi"),
    ("pass_at_k", "cispo", "target"),
    ("reinforce", "dppo_tv", "range"),
    ("grpo", "bapo", "schedule"),
    ("asymgrpo", "no_upper_bound", "target"),
    ("qae", "dppo_kl", "pi"),
    ("max_rl", "gspo", "target"),
    ("nsr", "sapo", "range"),
    ("w_reinforce", "clip_cov", "pi"),
]
# above the batch's entropy, so that the controller acts
SETTINGS = {"target": ["algorithm.entropy_control.target=2.0"]}
ROWS, TOKENS = 16, 10


@pytest.fixture(scope="module")
def small_run(tmp_path_factory) -> list[str]:
    return builders.run_overrides(tmp_path_factory.mktemp("run"))


def fields() -> dict[str, object]:
    """What verl has written before the advantages, of two prompts with correct and incorrect
    rollouts; no row's mask has holes."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, TOKENS + 1, (ROWS,), generator=generator)
    in_row = torch.arange(TOKENS) < lengths[:, None]
    draw = torch.rand(3, ROWS, TOKENS, generator=generator)
    correct = torch.arange(ROWS) % 3 == 0
    last = torch.arange(TOKENS) == lengths[:, None] - 1
    values = {
        "rm_scores": (correct[:, None] & last).float(),
        "response_mask": in_row.long(),
        "responses": in_row.long(),
        "entropy": draw[0],
        "old_log_probs": -draw[1] - 0.1,
        "ref_log_prob": -draw[2] - 0.1,
    }
    uids = np.array([f"p{row // 8}" for row in range(ROWS)], dtype=object)
    return {"uid": uids, **{name: nested(x, lengths) for name, x in values.items()}}


@pytest.mark.parametrize(("advantage", "loss", "controller"), CASES)
def test_an_advantage_a_loss_and_a_controller_combine(advantage, loss, controller, small_run):
    config = compose(
        "clip_entropy",
        [
            *small_run,
            "algorithm.adv_estimator=asymgrpo",
            f"algorithm.asymgrpo.preset={advantage}",
            f"actor_rollout_ref.actor.policy_loss.preset={loss}",
            f"algorithm.entropy_control.controller={controller}",
            "actor_rollout_ref.actor.calculate_entropy=true",
            *SETTINGS.get(controller, []),
        ],
    )
    preflight.check(config)
    parts = parts_of(config)
    clips = config.actor_rollout_ref.actor.policy_loss.loss_mode == "dynamic_clip"
    expected = {"asymgrpo", "entropy_control"} | ({"clip_schedule"} if clips else set())
    assert {part.name for part in parts} == expected

    batch = fields()
    lengths = batch["response_mask"].offsets().diff()
    rule = next(part.correctness for part in parts if part.correctness is not None)
    step = step_of(
        list(batch["uid"]),
        number=3,
        metrics={"actor/entropy": 0.1},
        config=config,
        correctness=rule,
    )
    with queue_of(batch), step.as_current():
        advantages, _ = get_adv_estimator_fn("asymgrpo")(
            token_level_rewards=batch["rm_scores"].to_padded_tensor(0.0),
            response_mask=batch["response_mask"].to_padded_tensor(0),
            index=batch["uid"],
            config=config.algorithm,
        )
        batch["advantages"] = nested(advantages, lengths)
        for part in parts:
            part.after_advantage(step)
        for part in parts:
            part.before_update(step)
    told = step.batch.extra_info.get(EXTRA_INFO, {})
    assert (told.get(ENTROPY_COEFF, 0) > 0) == (controller in ("schedule", "target"))
    assert (CLIP_BOUNDS in told) == clips

    data = {name: x for name, x in batch.items() if name not in ("uid", "rm_scores")}
    data["prompts"] = nested(torch.ones(ROWS, 1).long(), torch.ones(ROWS).long())
    micro_batch = TensorDict(data, batch_size=ROWS)
    tu.assign_non_tensor(
        micro_batch, dp_size=1, batch_num_tokens=lengths.sum(), global_batch_size=ROWS
    )
    tu.assign_non_tensor(micro_batch, **{EXTRA_INFO: told})
    old_BT = batch["old_log_probs"].to_padded_tensor(0.0)
    leaf = (old_BT - 0.15).requires_grad_()

    def model_output(values_BT: torch.Tensor) -> torch.Tensor:
        rows = [
            torch.cat([values_BT[i, :n], values_BT.new_zeros(1)]) for i, n in enumerate(lengths)
        ]
        return torch.nested.as_nested_tensor(rows, layout=torch.jagged)

    entropy_BT = batch["entropy"].to_padded_tensor(0.0)
    entropy_BT[:, ::2] *= 0.8
    output = {"log_probs": model_output(leaf), "entropy": model_output(entropy_BT)}
    observers = [observe for part in parts for observe in part.loss_observers]
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    value, metrics = actor_loss.actor_loss(actor, output, micro_batch, observers=observers)
    value.backward()
    assert value.isfinite() and leaf.grad.isfinite().all()
    if not (
        advantage == "psr" and controller == "range"
    ):  # below its lines it drops all that is left
        assert leaf.grad.any()
    assert "actor/pg_loss" in metrics
