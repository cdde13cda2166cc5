"""One suite for every policy loss that a recipe's record names, with the settings of every method
that uses it.

A loss gets what the trainer gives it: the fields and settings that come from verl, and those that
the recipes' own parts choose for this batch (clip bounds, token classes, coefficients). So a new
loss needs no case of its own here; only what a loss does not promise is written down (NOT_SPLIT).
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import builders
import pytest
import torch
from builders import nested, parts_of, queue_of, step_of
from omegaconf import DictConfig
from tensordict import TensorDict
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY, compute_policy_loss_vanilla
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.metric import AggregationType, Metric
from verl.workers.config import ActorConfig

from recipe.clip_entropy import balance, regions
from recipe.clip_entropy.config import VARIANTS
from recipe.clip_entropy.schedules import SCHEDULES
from recipe.core import actor_loss
from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import importance_ratio
from recipe.core.clipped_term import CLIP_BOUNDS
from recipe.core.recipe import recipe_named, recipes
from recipe.semantic_curriculum import register as sent

KEY = "actor_rollout_ref.actor.policy_loss.loss_mode"
ROWS, TOKENS = 16, 20  # 2 prompts x 8 rollouts: one mini-batch of `builders.run_overrides`
ARGUMENTS = ("old_log_prob", "log_prob", "advantages", "response_mask")
# Losses that choose tokens among those of a micro-batch depend on it by definition
NOT_SPLIT: dict[str, Callable[[ActorConfig], bool]] = {
    "sent": lambda actor: actor.policy_loss.token_rule.scope == "micro_batch",
}
# Losses that are verl's vanilla to the bit where their bounds are constant
FLAT: dict[str, Callable[[ActorConfig], bool]] = {
    "dynamic_clip": lambda actor: (
        (actor.policy_loss.schedule, actor.policy_loss.variant) == ("static", "ppo")
    ),
}


# metrics that are means over the response tokens of a mini-batch
MEASURED = (regions.PREFIX, balance.PREFIX, sent.PREFIX)


def names() -> list[str]:
    return [name for record in builders.recipes() for name in record.losses]


@dataclass(frozen=True)
class Batch:
    """One mini-batch: (B, T) tensors, right-padded, by the names of verl's fields, and the plain
    values that the parts told the loss. Every row has a token; the mask has holes."""

    tensors: dict[str, Tensor]
    lengths: Tensor
    told: dict[str, Any]

    def with_(self, **tensors: Tensor) -> Batch:
        return dataclasses.replace(self, tensors=self.tensors | tensors)

    def rows(self, index: Sequence[int]) -> Batch:
        index = list(index)
        tensors = {name: x[index] for name, x in self.tensors.items()}
        return Batch(tensors, self.lengths[index], self.told)

    def arguments(self) -> dict[str, Tensor]:
        return {name: self.tensors[name] for name in ARGUMENTS}

    def fields(self) -> dict[str, Tensor]:
        """As TransferQueue holds them: jagged, under the trainer's names."""
        names = {"old_log_prob": "old_log_probs"}
        ones = torch.ones(len(self.lengths), 1, dtype=torch.long)
        return {
            **{names.get(k, k): nested(x, self.lengths) for k, x in self.tensors.items()},
            "prompts": nested(ones, torch.ones_like(self.lengths)),
            "responses": nested(torch.zeros_like(self.tensors["log_prob"]).long(), self.lengths),
        }

    def micro_batch(self) -> MicroBatch:
        fields = TensorDict(self.fields(), batch_size=len(self.lengths))
        output = {"entropy": model_output(self.tensors["new_entropy"], self.lengths)}
        return MicroBatch(self.told, fields, output)


def model_output(values_BT: Tensor, lengths: Tensor) -> Tensor:
    """As the model returns it: prompt and response in one row, shifted by one."""
    rows = [
        torch.cat([row[:n], row.new_zeros(1)]) for row, n in zip(values_BT, lengths, strict=True)
    ]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def tokens(seed: int = 0) -> Batch:
    """Log-ratios near 0, between the bounds of two schedules, far beyond any, and beyond the dual
    clip: none of them near a bound, where a rounding would decide. Entropies change by up to a
    fifth. More advantages are negative. One row's mask is empty, as verl's padding is."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, TOKENS)
    sizes = torch.tensor([0.05, 0.1, 0.22, 0.7, 1.6, -0.05, -0.1, -0.28, -0.7, -1.6])
    log_ratio = sizes[torch.randint(0, len(sizes), shape, generator=generator)]
    old = -torch.randn(shape, generator=generator).abs() - 1.7
    lengths = torch.randint(1, TOKENS + 1, (ROWS,), generator=generator)
    lengths[0] = TOKENS
    in_row = torch.arange(TOKENS) < lengths[:, None]
    mask = in_row & (torch.rand(shape, generator=generator) < 0.8)
    mask[:, 0], mask[3] = True, False
    entropy = torch.rand(shape, generator=generator)
    tensors = {
        "old_log_prob": old,
        "log_prob": old + log_ratio,
        "advantages": torch.randn(ROWS, 1, generator=generator).expand(shape) - 0.4,
        "entropy": entropy,
        "new_entropy": entropy * (0.8 + 0.4 * torch.rand(shape, generator=generator)),
        "ref_log_prob": old + 0.3 * torch.randn(shape, generator=generator),
        "response_mask": mask,
    }
    return Batch({name: x * in_row for name, x in tensors.items()}, lengths, {})


def prepared(config: DictConfig, batch: Batch) -> Batch:
    """Lets the recipes' parts do with the batch what they do before the fourth update of a run, the
    third of which has measured what they ask for. The entropy has fallen to a tenth by then, and
    the run is in its first half."""
    config = copy.deepcopy(config)
    config.trainer.total_training_steps = 12
    fields, parts = batch.fields(), parts_of(config)
    before, uids = set(fields), [f"p{row // 8}" for row in range(ROWS)]
    for number, scale in enumerate((10.0, 3.0, 1.0, 1.0)):
        fields["entropy"] = nested(scale * batch.tensors["entropy"], batch.lengths)
        step = step_of(uids, number=number, metrics={"actor/entropy": 0.1}, config=config)
        with queue_of(fields):
            for part in parts:
                part.before_update(step)
        # torch pads rows of unknown lengths to all of their values
        chosen = {
            name: fields[name].to_padded_tensor(0)[:, :TOKENS] for name in set(fields) - before
        }
        told = step.batch.extra_info.get(actor_loss.EXTRA_INFO, {})
        ready = dataclasses.replace(batch.with_(**chosen), told=told)
        measuring = [part for part in parts if part.loss_observers]
        if number == 2 and measuring:
            metrics = updated(config, ready, 1, int(batch.tensors["response_mask"].sum()))[1]
            step.metrics.update({k: m.aggregate() for k, m in metrics.items() if summed(m)})
            with queue_of(fields):
                for part in measuring:
                    part.after_update(step)
    return ready


def updated(
    config: DictConfig, batch: Batch, ranks: int, tokens: int
) -> tuple[Tensor, dict[str, Any]]:
    """The whole way of a micro-batch through `actor_loss`; returns gradient and metrics."""
    leaf = batch.tensors["log_prob"].clone().requires_grad_()
    data = TensorDict(batch.fields(), batch_size=len(batch.lengths))
    tu.assign_non_tensor(data, dp_size=ranks, batch_num_tokens=tokens, global_batch_size=ROWS)
    tu.assign_non_tensor(data, **{actor_loss.EXTRA_INFO: batch.told})
    output = {
        "log_probs": model_output(leaf, batch.lengths),
        "entropy": model_output(batch.tensors["new_entropy"], batch.lengths),
    }
    observers = [observe for part in parts_of(config) for observe in part.loss_observers]
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    loss, metrics = actor_loss.actor_loss(actor, output, data, observers=observers)
    loss.backward()
    return leaf.grad, metrics


@dataclass(frozen=True)
class Loss:
    """A registered loss with one method's settings."""

    name: str
    function: Callable
    config: DictConfig

    def actor(self) -> ActorConfig:
        return omega_conf_to_dataclass(self.config.actor_rollout_ref.actor)

    def batch(self) -> Batch:
        return prepared(self.config, tokens())

    def __call__(self, batch: Batch, micro_batch: MicroBatch | None = None) -> tuple[Tensor, dict]:
        """As verl's ppo_loss calls it."""
        actor = self.actor()
        with actor_loss.as_current(micro_batch or batch.micro_batch()):
            return self.function(
                **batch.arguments(),
                loss_agg_mode=actor.loss_agg_mode,
                config=actor,
                rollout_is_weights=None,
            )

    def gradient(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Returns the loss and its gradient by the log-probs."""
        leaf = batch.tensors["log_prob"].clone().requires_grad_()
        loss, _ = self(batch.with_(log_prob=leaf))
        loss.backward()
        return loss.detach(), leaf.grad

    def step(self, batch: Batch, ranks: int, tokens: int) -> tuple[Tensor, dict[str, Any]]:
        return updated(self.config, batch, ranks, tokens)


# ---- the properties ------------------------------------------------------------------------------


def is_a_finite_scalar_with_plain_metrics(loss: Loss) -> None:
    value, gradient = loss.gradient(loss.batch())
    assert value.ndim == 0 and value.dtype == torch.float32
    assert value.isfinite() and gradient.isfinite().all() and gradient.any()
    _, metrics = loss(loss.batch())
    assert all(type(x) is float and math.isfinite(x) for x in metrics.values())


def stays_finite_at_a_log_ratio_of_1000(loss: Loss) -> None:
    batch = loss.batch()
    old_log_prob = batch.tensors["log_prob"].clone()
    for row, log_ratio in enumerate((1000.0, -1000.0) * 4):  # over both signs of A
        token = int(batch.tensors["response_mask"][row].int().argmax())
        old_log_prob[row, token] -= log_ratio
    value, gradient = loss.gradient(batch.with_(old_log_prob=old_log_prob))
    assert value.isfinite() and gradient.isfinite().all()


def leaves_its_inputs_alone(loss: Loss) -> None:
    batch = loss.batch()
    micro_batch = batch.micro_batch()
    same = {name: x.clone() for name, x in batch.tensors.items()}
    held = {name: x.values().clone() for name, x in micro_batch.fields.items()}
    loss(batch, micro_batch)
    assert all(torch.equal(x, same[name]) for name, x in batch.tensors.items())
    assert all(torch.equal(micro_batch.fields[name].values(), x) for name, x in held.items())


def reads_nothing_outside_the_mask(loss: Loss) -> None:
    """Any log-probs, advantages, entropies and fields there change neither loss nor gradient."""
    batch = loss.batch()
    outside = ~batch.tensors["response_mask"]
    expected, its_gradient = loss.gradient(batch)
    assert not its_gradient[outside].any()
    wild = {"old_log_prob": -60.0, "log_prob": -1e-3, "advantages": -1e4, "ref_log_prob": -70.0}
    for name in batch.tensors.keys() - {"response_mask"}:
        value = wild.get(name, 3)
        other = {name: torch.where(outside, value, batch.tensors[name]).to(batch.tensors[name])}
        found, gradient = loss.gradient(batch.with_(**other))
        assert torch.equal(found, expected), name
        assert torch.equal(gradient, its_gradient), name
    reversed_ = {
        name: torch.where(outside, value, batch.tensors[name])
        for name, value in {**wild, "old_log_prob": -1e-3, "log_prob": -60.0}.items()
    }
    found, gradient = loss.gradient(batch.with_(**reversed_))
    assert torch.equal(found, expected) and torch.equal(gradient, its_gradient)


def has_the_same_gradient_in_bf16(loss: Loss) -> None:
    """To bf16's rounding, 2^-8, a few times over; advantages are float32, as verl's are."""
    batch = loss.batch()
    rounded = {name: batch.tensors[name].bfloat16() for name in ("old_log_prob", "log_prob")}
    value, gradient = loss.gradient(batch.with_(**rounded))
    expected, exact = loss.gradient(batch.with_(**{k: x.float() for k, x in rounded.items()}))
    assert value.dtype == torch.float32 and gradient.dtype == torch.bfloat16
    atol = 2**-8 * exact.abs().max().item()
    torch.testing.assert_close(gradient.float(), exact, rtol=2**-6, atol=atol)
    torch.testing.assert_close(value, expected, rtol=2**-6, atol=2**-8)


def has_the_same_gradient_in_float64(loss: Loss) -> None:
    batch = loss.batch()
    names = ("old_log_prob", "log_prob", "advantages", "ref_log_prob", "entropy")
    value, gradient = loss.gradient(batch.with_(**{k: batch.tensors[k].double() for k in names}))
    expected, exact = loss.gradient(batch)
    assert value.dtype == gradient.dtype == torch.float64
    torch.testing.assert_close(value.float(), expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient.float(), exact, rtol=1e-5, atol=1e-7)


def copies_nothing_to_the_host(loss: Loss) -> None:
    """On fake tensors, which hold no values, a read of one raises. Stand-ins: `to_floats`, which
    makes the one copy that is meant, and the micro-batch, whose fields verl pads."""
    real = loss.batch()

    class Fake(MicroBatch):
        def padded(self, name: str) -> Tensor:
            return self.fields[name]

        def entropy(self) -> Tensor:
            return self.output["new_entropy"]

    with pytest.MonkeyPatch.context() as patch, FakeTensorMode():
        patch.setattr(actor_loss, "to_floats", dict)
        fake = {k: torch.empty(x.shape, dtype=x.dtype) for k, x in real.tensors.items()}
        leaf = fake["log_prob"].requires_grad_()
        micro_batch = Fake(real.told, fake, fake)
        value, metrics = loss(Batch(fake, real.lengths, real.told), micro_batch)
        value.backward()
    assert leaf.grad.shape == (ROWS, TOKENS)
    left = [*metrics.values(), *micro_batch.sums.values()]
    assert all(x.ndim == 0 and not x.requires_grad for x in left)


def depends_on_no_order_of_rows(loss: Loss) -> None:
    batch = loss.batch()
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    expected, its_gradient = loss.gradient(batch)
    found, gradient = loss.gradient(batch.rows(order.tolist()))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(gradient, its_gradient[order], rtol=1e-5, atol=1e-9)


def depends_on_no_split_over_micro_batches_and_ranks(loss: Loss) -> None:
    """The gradients of the parts are those of the whole, averaged over ranks as FSDP does; so are
    the metrics that are sums over the mini-batch."""
    if loss.name in NOT_SPLIT and NOT_SPLIT[loss.name](loss.actor()):
        return
    batch = loss.batch()
    count = int(batch.tensors["response_mask"].sum())
    expected, its_metrics = loss.step(batch, 1, count)
    rows = list(range(ROWS))
    for ranks, parts in (
        (1, [[rows[:5], rows[5:6], rows[6:]]]),
        (2, [[rows[::2]], [rows[1::2]]]),
        (2, [[rows[2:4], rows[:2]], [rows[4:15], rows[15:]]]),  # unequal shares
    ):
        gradient, sums = torch.zeros_like(expected), dict.fromkeys(its_metrics, 0.0)
        for of_rank in parts:
            for index in of_rank:
                part = batch.rows(index)
                width = int(part.lengths.max())
                part = part.with_(**{name: x[:, :width] for name, x in part.tensors.items()})
                part_gradient, metrics = loss.step(part, ranks, count)
                gradient[index, :width] += part_gradient / ranks
                for name, metric in metrics.items():
                    sums[name] += metric.aggregate() / ranks if summed(metric) else math.nan
        torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-8)
        for name in (name for name, metric in its_metrics.items() if summed(metric)):
            whole = pytest.approx(float(its_metrics[name].aggregate()), rel=1e-4, abs=1e-7)
            assert float(sums[name]) == whole, name


def takes_a_micro_batch_of_padding_alone(loss: Loss) -> None:
    """verl fills a short batch with rows without a response token; in micro-batches of one row, as
    GPU runs have them, such a row is alone: no gradient, and no metric that is not a number."""
    batch = loss.batch().rows([3])
    assert not batch.tensors["response_mask"].any()
    gradient, metrics = loss.step(batch, 1, 100)
    assert not gradient.any()
    for name, metric in metrics.items():
        value = metric.aggregate() if isinstance(metric, Metric) else metric
        assert math.isfinite(float(value)), name


def lets_verl_skip_a_mini_batch_without_a_token(loss: Loss) -> None:
    """verl's own loss over 0 tokens is NaN, and it skips such an update."""
    gradient, metrics = loss.step(loss.batch().rows([3]), 1, 0)
    assert not gradient.nan_to_num().any()
    ours = (*MEASURED, actor_loss.KEPT_SHARE)
    assert not any(m.aggregate() for name, m in metrics.items() if name.startswith(ours))


def measures_no_token_that_is_rejected(loss: Loss) -> None:
    """verl's rollout correction empties the mask of what it rejects, and counts it among the tokens
    all the same; a mean over tokens does not depend on it."""
    batch = loss.batch()
    mask = batch.tensors["response_mask"].clone()
    mask[5:11] = False
    left = batch.with_(response_mask=mask)
    of_left, of_all = (
        {
            name: metric.aggregate()
            for name, metric in loss.step(left, 1, tokens)[1].items()
            if name == actor_loss.KEPT_SHARE or name.startswith(MEASURED)
        }
        for tokens in (int(mask.sum()), int(batch.tensors["response_mask"].sum()))
    )
    if actor_loss.KEPT_SHARE in of_left:
        assert of_left[actor_loss.KEPT_SHARE] == 1 > of_all[actor_loss.KEPT_SHARE]
    means = actor_loss.take_prefixed(of_left, "actor/")
    assert actor_loss.take_prefixed(of_all, "actor/") == pytest.approx(means)


def summed(metric: Any) -> bool:
    return isinstance(metric, Metric) and metric.aggregation is AggregationType.SUM


def is_verls_vanilla_with_flat_bounds(loss: Loss) -> None:
    if loss.name not in FLAT or not FLAT[loss.name](loss.actor()):
        return
    vanilla = dataclasses.replace(loss, function=compute_policy_loss_vanilla)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        batch = loss.batch()
        batch = batch.with_(**{k: batch.tensors[k].to(dtype) for k in ("old_log_prob", "log_prob")})
        for found, expected in zip(loss.gradient(batch), vanilla.gradient(batch), strict=True):
            assert found.dtype == expected.dtype and torch.equal(found, expected)


PROPERTIES = (
    is_a_finite_scalar_with_plain_metrics,
    stays_finite_at_a_log_ratio_of_1000,
    leaves_its_inputs_alone,
    reads_nothing_outside_the_mask,
    has_the_same_gradient_in_bf16,
    has_the_same_gradient_in_float64,
    copies_nothing_to_the_host,
    depends_on_no_order_of_rows,
    depends_on_no_split_over_micro_batches_and_ranks,
    takes_a_micro_batch_of_padding_alone,
    lets_verl_skip_a_mini_batch_without_a_token,
    measures_no_token_that_is_rejected,
    is_verls_vanilla_with_flat_bounds,
)

# ---- the suite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("check", PROPERTIES, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", names())
def test_a_loss(name, check, users_of):
    for method, config in users_of(KEY, name).items():
        try:
            check(Loss(name, POLICY_LOSS_REGISTRY[name], config))
        except Exception as error:
            error.add_note(f"with the settings of {method}")
            raise


def test_every_variant_and_schedule_acts_on_the_batch(users_of):
    """Otherwise the suite would have tested PPO under their names."""
    acting = set()
    for method, config in users_of(KEY, "dynamic_clip").items():
        settings = config.actor_rollout_ref.actor.policy_loss
        loss = Loss("dynamic_clip", POLICY_LOSS_REGISTRY["dynamic_clip"], config)
        batch, plain = loss.batch(), copy.deepcopy(config)
        plain.actor_rollout_ref.actor.policy_loss.variant = "ppo"
        if settings.variant != "ppo":
            as_ppo = dataclasses.replace(loss, config=plain).gradient(batch)[1]
            assert not torch.equal(loss.gradient(batch)[1], as_ppo), method
        elif settings.schedule != "static":
            told = {k: x for k, x in batch.told.items() if k != CLIP_BOUNDS}
            plain.actor_rollout_ref.actor.policy_loss.schedule = "static"
            still = dataclasses.replace(loss, config=plain)
            constant = still.gradient(dataclasses.replace(batch, told=told))[1]
            assert not torch.equal(loss.gradient(batch)[1], constant), method
        acting |= {settings.variant, settings.schedule}
    assert acting == VARIANTS.keys() | SCHEDULES.keys()


@pytest.mark.parametrize("name", names())
def test_a_loss_takes_what_verl_hands_over(name):
    verls = inspect.signature(compute_policy_loss_vanilla).parameters
    inspect.signature(POLICY_LOSS_REGISTRY[name]).bind(**dict.fromkeys(verls))


def test_the_records_name_every_loss_that_is_registered():
    """One that no record names would be in no suite."""
    for record in recipes():
        assert builders.registered_by(record, POLICY_LOSS_REGISTRY) == set(record.losses)


def test_a_loss_that_no_method_uses_fails(monkeypatch, users_of):
    example = recipe_named("example")
    fake = dataclasses.replace(example, losses=(*example.losses, "unheard_of"))
    monkeypatch.setattr(builders, "recipes", lambda: (fake,))
    assert names() == ["entropy_target", "unheard_of"]
    with pytest.raises(AssertionError, match="unheard_of is registered, but no recipe"):
        users_of(KEY, "unheard_of")


# ---- the suite finds what it is for --------------------------------------------------------------


def sound(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, **_):
    """A loss that keeps the contract: -A ratio."""
    loss_BT = -advantages * importance_ratio(log_prob, old_log_prob)
    loss = actor_loss.aggregate(loss_BT, response_mask, loss_agg_mode, config)
    return loss, actor_loss.to_floats({"actor/ratio": (loss_BT * response_mask).detach().sum()})


def _tensor_metrics(**arguments):
    loss, _ = sound(**arguments)
    return loss, {"loss": loss.detach()}


def _unbounded(old_log_prob, log_prob, **arguments):
    loss, metrics = sound(old_log_prob=old_log_prob, log_prob=log_prob, **arguments)
    return loss + (log_prob - old_log_prob).exp().mean(), metrics


def _in_place(advantages, **arguments):
    return sound(advantages=advantages.sub_(0.5), **arguments)


def _unmasked(response_mask, **arguments):
    return sound(response_mask=torch.ones_like(response_mask), **arguments)


def _bf16(advantages, log_prob, **arguments):
    return sound(advantages=advantages.to(log_prob.dtype), log_prob=log_prob, **arguments)


def _float32(log_prob, **arguments):
    return sound(log_prob=log_prob.float(), **{k: _single(x) for k, x in arguments.items()})


def _single(value):
    return value.float() if torch.is_tensor(value) and value.dtype == torch.float64 else value


def _reads_a_value(log_prob, **arguments):
    return sound(log_prob=log_prob if log_prob.max() < 1 else log_prob.clamp(max=1), **arguments)


def _by_first_row(advantages, **arguments):
    return sound(advantages=advantages - advantages[0], **arguments)


def _mean_of_the_micro_batch(response_mask, config, **arguments):
    own_size = dataclasses.replace(config, global_batch_info={})
    return sound(response_mask=response_mask, config=own_size, **arguments)


def _left_as_means(log_prob, response_mask, **arguments):
    """Sums that a loss leaves must be sums."""
    actor_loss.current().sums["log_prob"] = log_prob.detach()[response_mask].mean()
    return sound(log_prob=log_prob, response_mask=response_mask, **arguments)


def _mean_over_the_mask(response_mask, **arguments):
    loss, metrics = sound(response_mask=response_mask, **arguments)
    mean = arguments["log_prob"].detach()[response_mask].mean()  # of nothing
    return loss, {**metrics, "actor/mean": mean.item()}


BROKEN = {
    _mean_over_the_mask: takes_a_micro_batch_of_padding_alone,
    _tensor_metrics: is_a_finite_scalar_with_plain_metrics,
    _unbounded: stays_finite_at_a_log_ratio_of_1000,
    _in_place: leaves_its_inputs_alone,
    _unmasked: reads_nothing_outside_the_mask,
    _bf16: has_the_same_gradient_in_bf16,
    _float32: has_the_same_gradient_in_float64,
    _reads_a_value: copies_nothing_to_the_host,
    _by_first_row: depends_on_no_order_of_rows,
    _mean_of_the_micro_batch: depends_on_no_split_over_micro_batches_and_ranks,
    _left_as_means: depends_on_no_split_over_micro_batches_and_ranks,
    sound: is_verls_vanilla_with_flat_bounds,
}


READ = DataDependentOutputException, "aten._local_scalar_dense"  # torch's own, of a fake tensor


@pytest.fixture
def plain_grpo(config_of) -> DictConfig:
    return config_of(builders.Method(recipe_named("clip_entropy"), "grpo"))


@pytest.mark.parametrize("broken", BROKEN, ids=lambda function: function.__name__)
def test_a_broken_loss_fails(broken, plain_grpo, monkeypatch):
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "dynamic_clip", broken)
    error, message = READ if broken is _reads_a_value else (AssertionError, None)
    with pytest.raises(error, match=message):
        BROKEN[broken](Loss("dynamic_clip", broken, plain_grpo))


@pytest.mark.parametrize("check", PROPERTIES[:-1], ids=lambda check: check.__name__)
def test_a_sound_loss_passes(check, plain_grpo, monkeypatch):
    monkeypatch.setitem(POLICY_LOSS_REGISTRY, "dynamic_clip", sound)
    check(Loss("dynamic_clip", sound, plain_grpo))
