"""verl's own losses through our presets: the config's bounds and aggregation are those of their
papers, and loss and gradient on the way of a training step are verl's on the same inputs."""

from __future__ import annotations

import pytest
import torch
from builders import Method, nested, random_tokens
from tensordict import TensorDict
from verl.trainer.ppo import core_algos
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.workers.config import FSDPActorConfig, PolicyLossConfig

from recipe.core import actor_loss
from recipe.core.recipe import recipe_named

# preset: verl's loss, its two bounds, aggregation, c of the dual clip or of the truncation
PAPERS = {
    "cispo": ("cispo", 10.0, 0.2, "token-mean", 3.0),
    "dppo_tv": ("dppo_tv", 0.15, 0.15, "seq-mean-token-sum-norm", 1e4),
    "dppo_kl": ("dppo_kl", 0.05, 0.05, "seq-mean-token-sum-norm", 1e4),
    "gspo": ("gspo", 3e-4, 4e-4, "seq-mean-token-mean", 3.0),
    "sapo": ("sapo", 0.2, 0.2, "seq-mean-token-mean", 3.0),
    "clip_cov": ("clip_cov", 1.0, 1.0, "token-mean", 3.0),
}


def test_every_preset_of_a_loss_of_verls_is_here():
    presets = recipe_named("clip_entropy").load(".config:PRESETS")
    assert {name for name, preset in presets.items() if preset.loss_mode != "dynamic_clip"} == set(
        PAPERS
    )


@pytest.mark.parametrize("preset", PAPERS)
def test_loss_and_gradient_are_verls_own(preset, config_of):
    """SENT's `kl_cov` is compared with verl's in tests/semantic_curriculum."""
    name, low, high, mode, c = PAPERS[preset]
    config = config_of(Method(recipe_named("clip_entropy"), preset))
    data = random_tokens(spread=0.6)
    data["response_mask"][:, 0] = True  # verl's model output has no row without a token
    lengths, tokens = data["response_mask"].sum(1), data["response_mask"].sum()
    size = config.data.max_response_length
    info = {"dp_size": 1, "batch_num_tokens": tokens, "global_batch_size": len(lengths)}

    plain = FSDPActorConfig(
        strategy="fsdp2",
        rollout_n=8,
        use_dynamic_bsz=True,
        clip_ratio_low=low,
        clip_ratio_high=high,
        clip_ratio_c=c,
        policy_loss=PolicyLossConfig(loss_mode=name),
    )
    plain.global_batch_info.update(info, loss_scale_factor=size)
    verls = core_algos.get_policy_loss_fn(name)
    leaf = data["log_prob"].clone().requires_grad_()
    torch.manual_seed(0)  # Clip-Cov draws its tokens
    expected, _ = getattr(verls, "__wrapped__", verls)(
        **{**data, "log_prob": leaf}, loss_agg_mode=mode, config=plain, rollout_is_weights=None
    )
    expected.backward()

    ours = data["log_prob"].clone().requires_grad_()
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
    tu.assign_non_tensor(batch, **info)
    rows = [torch.cat([ours[i, :n], ours.new_zeros(1)]) for i, n in enumerate(lengths.tolist())]
    output = {"log_probs": torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
    torch.manual_seed(0)
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss, _ = actor_loss.actor_loss(actor, output, batch)
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6) and leaf.grad.any()
    torch.testing.assert_close(ours.grad, leaf.grad, rtol=1e-6, atol=1e-9)
    assert actor.policy_loss.loss_mode == name
