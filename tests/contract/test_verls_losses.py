"""verl's own losses through our presets: the config's bounds and aggregation are those of their
papers, loss and gradient on the way of a training step are verl's on the same inputs; and what
CISPO and DPPO reduce to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from builders import Method, nested, random_tokens
from omegaconf import DictConfig, OmegaConf
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo import core_algos
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import FSDPActorConfig, PolicyLossConfig

from recipe.core import actor_loss
from recipe.core.recipe import recipe_named, recipes

# (recipe, preset): verl's loss, its two bounds, aggregation, c of the dual clip or the truncation
PAPERS = {
    ("clip_entropy", "cispo"): ("cispo", 10.0, 0.2, "token-mean", 3.0),
    ("clip_entropy", "dppo_tv"): ("dppo_tv", 0.15, 0.15, "seq-mean-token-sum-norm", 1e4),
    ("clip_entropy", "dppo_kl"): ("dppo_kl", 0.05, 0.05, "seq-mean-token-sum-norm", 1e4),
    ("clip_entropy", "gspo"): ("gspo", 3e-4, 4e-4, "seq-mean-token-mean", 3.0),
    ("clip_entropy", "sapo"): ("sapo", 0.2, 0.2, "seq-mean-token-mean", 3.0),
    ("clip_entropy", "clip_cov"): ("clip_cov", 1.0, 1.0, "token-mean", 3.0),
    ("semantic_curriculum", "clip_cov"): ("clip_cov", 1.0, 1.0, "token-mean", 3.0),
    ("semantic_curriculum", "kl_cov"): ("kl_cov", 0.2, 0.2, "token-mean", 3.0),
}
BY_OUR_LOSS = {("semantic_curriculum", "kl_cov"): "sent"}  # SENT's loss, with KL-Cov as its rule
# what verl's config has otherwise than by default: k and beta of arXiv 2505.22617's 7B run
SETTINGS = {"kl_cov": {"kl_cov_ratio": 2e-3, "ppo_kl_coef": 1.0}}


def method_of(recipe: str, preset: str) -> Method:
    return Method(recipe_named(recipe), preset)


def tokens_of(spread: float) -> dict[str, Tensor]:
    """Random tokens; verl's model output has no row without one."""
    data = random_tokens(rows=32, tokens=200, spread=spread)
    data["response_mask"][:, 0] = True
    return data


def with_a_far_ratio(data: dict[str, Tensor]) -> dict[str, Tensor]:
    """One token's ratio is e^11.5, 98,716, above DPPO's c of 10,000; no bound masks it, as A < 0
    and the probability has risen."""
    data["old_log_prob"][0, 3], data["log_prob"][0, 3] = -12.0, -0.5
    data["advantages"][0] = -data["advantages"][0].abs()
    return data


def batch_info(data: dict[str, Tensor]) -> dict[str, Any]:
    mask_BT = data["response_mask"]
    return {"dp_size": 1, "batch_num_tokens": mask_BT.sum(), "global_batch_size": len(mask_BT)}


def in_a_step(actor: FSDPActorConfig, data: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Loss and gradient on the way of a training step."""
    log_prob, lengths = data["log_prob"].clone().requires_grad_(), data["response_mask"].sum(1)
    batch = TensorDict(
        {
            "old_log_probs": nested(data["old_log_prob"], lengths),
            "advantages": nested(data["advantages"], lengths),
            "response_mask": nested(data["response_mask"].long(), lengths),
            "prompts": nested(torch.ones(len(lengths), 1).long(), torch.ones_like(lengths)),
            "responses": nested(data["response_mask"].long(), lengths),
        },
        batch_size=len(lengths),
    )
    tu.assign_non_tensor(batch, **batch_info(data))
    rows = [
        torch.cat([log_prob[i, :n], log_prob.new_zeros(1)]) for i, n in enumerate(lengths.tolist())
    ]
    output = {"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
    torch.manual_seed(0)  # Clip-Cov draws its tokens
    loss, _ = actor_loss.actor_loss(actor, output, batch)
    loss.backward()
    return loss.detach(), log_prob.grad


def actor_of(config: DictConfig, **changed: float) -> FSDPActorConfig:
    actor = OmegaConf.merge(config.actor_rollout_ref.actor, changed)
    return omega_conf_to_dataclass(actor)


def test_every_preset_of_a_loss_of_verls_is_here():
    """A preset without a loss_mode leaves its recipe's."""
    named = {
        (record.name, preset): row.loss_mode
        for record in recipes()
        if record.presets and record.package.startswith("recipe.")  # those of this repository
        for preset, row in record.load(record.presets).items()
        if hasattr(row, "loss_mode")
    }
    losses = core_algos.POLICY_LOSS_REGISTRY
    of_verls = {key for key, mode in named.items() if losses[mode].__module__.startswith("verl.")}
    assert of_verls == set(PAPERS) - set(BY_OUR_LOSS)


@pytest.mark.parametrize("paper", PAPERS, ids="-".join)
def test_loss_and_gradient_are_verls_own(paper, config_of):
    name, low, high, mode, c = PAPERS[paper]
    config, data = config_of(method_of(*paper)), tokens_of(spread=0.6)
    if name.startswith("dppo"):
        data = with_a_far_ratio(data)

    plain = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        use_dynamic_bsz=True,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=c,
        policy_loss=PolicyLossConfig(loss_mode=name, **SETTINGS.get(name, {})),
    )
    size = config.data.max_response_length
    plain.global_batch_info.update(batch_info(data), loss_scale_factor=size)
    verls = core_algos.get_policy_loss_fn(name)
    leaf = data["log_prob"].clone().requires_grad_()
    torch.manual_seed(0)
    expected, _ = getattr(verls, "__wrapped__", verls)(
        **{**data, "log_prob": leaf}, loss_agg_mode=mode, config=plain, rollout_is_weights=None
    )
    expected.backward()

    actor = actor_of(config)
    loss, gradient = in_a_step(actor, data)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and leaf.grad.any()
    torch.testing.assert_close(gradient, leaf.grad, rtol=1e-6, atol=1e-9)
    assert actor.policy_loss.loss_mode == BY_OUR_LOSS.get(paper, name)


def test_cispo_has_the_gradient_of_ppo_where_every_ratio_is_within_the_bounds(config_of):
    cispo, ppo = (actor_of(config_of(method_of("clip_entropy", p))) for p in ("cispo", "grpo"))
    data = tokens_of(spread=0.04)
    ratio_BT = (data["log_prob"] - data["old_log_prob"]).exp()
    assert 0.8 < ratio_BT.min() < 0.9 and 1.1 < ratio_BT.max() < 1.2
    gradient, expected = in_a_step(cispo, data)[1], in_a_step(ppo, data)[1]
    torch.testing.assert_close(gradient, expected, rtol=1e-6, atol=1e-9)
    # beyond them PPO drops tokens that CISPO keeps
    data = tokens_of(spread=0.2)
    dropped_BT = (in_a_step(ppo, data)[1] == 0) & data["response_mask"]
    assert dropped_BT.any() and in_a_step(cispo, data)[1][dropped_BT].all()


@pytest.mark.parametrize(
    ("preset", "bound"),
    [("dppo_tv", 1.0), ("dppo_kl", 1e3)],  # |p - q| <= 1; the KL of these tokens is below 20
)
def test_dppo_whose_bounds_hold_everything_is_reinforce_with_truncated_ratios(
    preset, bound, config_of
):
    """-sg(min(r, c)) A log pi, a sum over tokens, then a mean over the rows and the length."""
    config, data = config_of(method_of("clip_entropy", preset)), with_a_far_ratio(tokens_of(0.6))
    ratio_BT = (data["log_prob"] - data["old_log_prob"]).exp()
    weight_BT = ratio_BT.clamp(max=1e4) * data["response_mask"]
    expected = -data["advantages"] * weight_BT / (len(ratio_BT) * config.data.max_response_length)
    free = actor_of(config, clip_ratio_low=bound, clip_ratio_high=bound)
    torch.testing.assert_close(in_a_step(free, data)[1], expected, rtol=1e-6, atol=1e-12)
    # at the preset's own bounds it masks tokens, and leaves the others as they are
    gradient = in_a_step(actor_of(config), data)[1]
    kept_BT = gradient != 0
    assert 0 < kept_BT.sum() < expected.count_nonzero()
    torch.testing.assert_close(gradient[kept_BT], expected[kept_BT], rtol=1e-6, atol=1e-12)
