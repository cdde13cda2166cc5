"""The policy loss against verl's own, bit for bit, and the entropy regions against measurement."""

import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("verl")

from builders import actor_config, nested
from tensordict import TensorDict
from verl.trainer.ppo.core_algos import compute_policy_loss_vanilla, get_policy_loss_fn
from verl.utils import tensordict_utils as tu
from verl.utils.metric import Metric
from verl.workers.config import FSDPActorConfig

from recipe.clip_entropy import loss as L
from recipe.clip_entropy import regions, register
from recipe.clip_entropy.bounds import H, M
from recipe.core import actor_loss
from recipe.core.actor_loss import MicroBatch
from recipe.core.clip import Bounds, Clipped
from recipe.core.clipped_term import CLIP_BOUNDS, CLIPPED, ClippedRecord, pack_bounds

MODES = ("token-mean", "token-sum", "seq-mean-token-sum", "seq-mean-token-mean")
MODES += ("seq-mean-token-sum-norm",)
# of log-probs and old log-probs; the advantages are always float32
DTYPES = [(torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16)]
DTYPES += [(torch.bfloat16, torch.float32)]


def config(low=0.2, high=0.2, **settings) -> FSDPActorConfig:
    return actor_config("dynamic_clip", low=low, high=high, **settings)


def batch(seed: int, rows: int = 24, tokens: int = 64) -> dict[str, torch.Tensor]:
    """Ratios of every size: inside and outside any band, above the dual clip, beyond exp(20)."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    old = -draw(rows, tokens).abs() * 2
    log_prob = old + draw(rows, tokens) * torch.logspace(-4, 1.5, rows)[:, None]
    lengths = torch.randint(0, tokens + 1, (rows,), generator=generator)
    lengths[0], lengths[1] = tokens, 0  # a whole row, and verl's padding
    advantages = draw(rows, 1).expand(rows, tokens).clone()
    advantages[2] = 0.0
    return dict(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=advantages,
        response_mask=torch.arange(tokens)[None] < lengths[:, None],
        weights=draw(rows, tokens).exp(),
    )


def loss_and_gradient(function, data, mode, actor, weighted):
    log_prob = data["log_prob"].clone().requires_grad_()
    loss, metrics = function(
        old_log_prob=data["old_log_prob"],
        log_prob=log_prob,
        advantages=data["advantages"],
        response_mask=data["response_mask"],
        loss_agg_mode=mode,
        config=actor,
        rollout_is_weights=data["weights"] if weighted else None,
    )
    loss.backward()
    return loss.detach(), log_prob.grad, metrics


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.2, 0.2), (0.2, 0.28), (0.28, 0.2)])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtypes", DTYPES, ids=str)
def test_flat_bounds_are_verls_vanilla_to_the_bit(dtypes, mode, low, high, weighted):
    for seed in range(5):
        data, actor = batch(seed), config(low, high)
        for name, dtype in zip(("log_prob", "old_log_prob"), dtypes, strict=True):
            data[name] = data[name].to(dtype)
        for info in ({}, {"dp_size": 2, "batch_num_tokens": 1000, "global_batch_size": 48}):
            actor.global_batch_info.clear()
            actor.global_batch_info.update(info)
            ours = loss_and_gradient(register.dynamic_clip_loss, data, mode, actor, weighted)
            verls = loss_and_gradient(compute_policy_loss_vanilla, data, mode, actor, weighted)
            assert torch.equal(ours[0], verls[0])
            assert torch.equal(ours[1], verls[1])
            assert ours[2] == pytest.approx(verls[2], rel=1e-6)


def test_equality_holds_at_the_bounds_themselves():
    """Ratios within a rounding of 0.8, 1.2 and 3, where the branches of the maximum tie; with some
    advantages the products round to the same number although the ratio is beyond the bound."""
    edges = torch.tensor([0.8, 1.2, 3.0]).log()
    log_prob = (edges[:, None] + torch.arange(-200, 200) * 2.0**-26).reshape(1, -1)
    for advantage in (
        *torch.linspace(0.834, 0.9, 20).tolist(),
        *torch.linspace(-1.4, -0.7, 40).tolist(),
    ):
        data = dict(
            old_log_prob=torch.zeros_like(log_prob),
            log_prob=log_prob,
            advantages=torch.full_like(log_prob, advantage),
            response_mask=torch.ones_like(log_prob, dtype=torch.bool),
        )
        ours = loss_and_gradient(register.dynamic_clip_loss, data, "token-mean", config(), False)
        verls = loss_and_gradient(compute_policy_loss_vanilla, data, "token-mean", config(), False)
        assert torch.equal(ours[0], verls[0])
        assert torch.equal(ours[1], verls[1])


def test_it_is_registered():
    assert get_policy_loss_fn("dynamic_clip") is register.dynamic_clip_loss


LINES = Bounds(upper=H, lower=M)


# --- micro-batches and ranks ---


def micro_batch(data, rows, dp_size, tokens) -> TensorDict:
    lengths = data["response_mask"].sum(1).tolist()

    def nested(x):
        return torch.nested.as_nested_tensor(
            [x[r, : lengths[r]] for r in rows], layout=torch.jagged
        )

    fields = {
        "old_log_probs": nested(data["old_log_prob"]),
        "advantages": nested(data["advantages"]),
        "response_mask": nested(data["response_mask"].long()),
        "entropy": nested(data["weights"]),
        "prompts": torch.nested.as_nested_tensor(
            [torch.zeros(2, dtype=torch.long) for _ in rows], layout=torch.jagged
        ),
        "responses": nested(data["response_mask"].long()),
    }
    micro = TensorDict(fields, batch_size=len(rows))
    settings = {CLIP_BOUNDS: pack_bounds(LINES)}
    tu.assign_non_tensor(micro, dp_size=dp_size, batch_num_tokens=tokens, global_batch_size=24)
    tu.assign_non_tensor(micro, **{actor_loss.EXTRA_INFO: settings})
    return micro


def actor_gradient(data, rows, dp_size, tokens):
    """Gradient and metrics of `actor_loss` on some rows; the model's output is a leaf tensor."""
    leaf = data["log_prob"][rows].clone().requires_grad_()
    lengths = data["response_mask"][rows].sum(1)
    # verl's model output holds the prompt's positions too, shifted by one
    whole = [
        torch.cat([leaf.new_zeros(1), leaf[i, : int(n)], leaf.new_zeros(1)])
        for i, n in enumerate(lengths)
    ]
    output = {"log_probs": torch.nested.as_nested_tensor(whole, layout=torch.jagged)}
    loss, metrics = actor_loss.actor_loss(
        config(schedule="id"),
        output,
        micro_batch(data, rows, dp_size, tokens),
        observers=[regions.observe_regions],
    )
    loss.backward()
    return leaf.grad, metrics


def full_rows() -> dict[str, torch.Tensor]:
    data = batch(3)
    data["response_mask"][1, :5] = True  # verl's model output has no row without a token
    data["response_mask"][:, 0] = True
    return data


def test_sums_and_gradient_do_not_depend_on_the_split():
    data = full_rows()
    tokens = data["response_mask"].sum()
    whole, expected = actor_gradient(data, list(range(24)), 1, tokens)
    parts = [list(range(5)), [5], list(range(6, 24))]
    gradients, metrics = zip(
        *(actor_gradient(data, rows, 1, tokens) for rows in parts), strict=True
    )
    torch.testing.assert_close(torch.cat(gradients), whole, rtol=1e-6, atol=1e-9)
    names = [name for name in expected if name.startswith(regions.PREFIX)]
    assert len(names) == 2 + 4 * 3
    for name in names:
        summed = expected[name].init_list()  # as verl gathers micro-batches
        for of_part in metrics:
            summed.append(of_part[name])
        assert summed.aggregate() == pytest.approx(
            expected[name].aggregate(), rel=1e-5, abs=1e-9
        ), name
    shares = [expected[f"{regions.PREFIX}{region}/tokens"].aggregate() for region in L.REGIONS]
    in_a_region = (data["advantages"] != 0) & data["response_mask"]
    assert sum(shares) == pytest.approx((in_a_region.sum() / tokens).item())


def test_sums_over_two_ranks():
    data = full_rows()
    tokens = data["response_mask"].sum()
    _, expected = actor_gradient(data, list(range(24)), 1, tokens)
    ranks = [actor_gradient(data, list(range(r, 24, 2)), 2, tokens)[1] for r in range(2)]
    for name in (name for name in expected if name.startswith(regions.PREFIX)):
        got = Metric.aggregate_dp([metrics[name] for metrics in ranks])  # as verl does
        assert got == pytest.approx(expected[name].aggregate(), rel=1e-5, abs=1e-9), name


def one_rank(rank: int, port: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2
    )
    data = full_rows()
    rows = list(range(rank, 24, 2))
    tokens = data["response_mask"][rows].sum()
    torch.distributed.all_reduce(tokens)
    gradient, _ = actor_gradient(data, rows, 2, tokens)
    whole = torch.zeros(24, 64)
    whole[rows] = gradient
    torch.distributed.all_reduce(whole)
    torch.save(whole / 2, f"{folder}/{rank}.pt")  # FSDP averages over ranks
    torch.distributed.destroy_process_group()


def test_two_ranks_give_the_gradient_of_one(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    command = [sys.executable, __file__]
    tests = os.pathsep.join(
        filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
    )
    environment = {**os.environ, "PYTHONPATH": tests}
    ranks = [
        subprocess.Popen([*command, str(rank), str(port), tmp_path], env=environment)
        for rank in range(2)
    ]
    assert [rank.wait(120) for rank in ranks] == [0, 0]
    data = full_rows()
    expected, _ = actor_gradient(data, list(range(24)), 1, data["response_mask"].sum())
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_a_moving_schedule_without_the_trainer_is_refused():
    with pytest.raises(ValueError, match=r"schedule=id moves.*trainer_mode=recipe_sync"):
        loss_and_gradient(
            register.dynamic_clip_loss, batch(0), "token-mean", config(schedule="id"), False
        )


# --- what a token does to the entropy ---


def policies(count: int = 20_000, seed: int = 0):
    """Random softmax policies over 3 to 50 tokens, from nearly uniform to nearly certain."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count // 1000):
        vocabulary = int(torch.randint(3, 51, (), generator=generator))
        scale = 4 * torch.rand(1000, 1, generator=generator, dtype=torch.float64) + 0.1
        logits = scale * torch.randn(1000, vocabulary, generator=generator, dtype=torch.float64)
        token = torch.distributions.Categorical(logits=logits)
        torch.manual_seed(seed)
        chosen = token.sample()
        advantage = torch.randn(1000, generator=generator, dtype=torch.float64)
        yield logits, chosen, advantage


def entropy_of(logits):
    return torch.distributions.Categorical(logits=logits).entropy()


def test_region_signs_against_the_measured_entropy_change(record_property):
    """Eq 5 is the derivative of the entropy along the token's push: measured by central
    differences in logit space. How often the paper's approximation (eq 6) agrees is reported."""
    agree = total = 0
    for logits, chosen, advantage in policies():
        log_p = logits.log_softmax(-1)
        log_prob = log_p.gather(1, chosen[:, None])[:, 0]
        push = advantage[:, None] * (
            torch.nn.functional.one_hot(chosen, log_p.shape[1]) - log_p.exp()
        )
        size = 1e-5
        change = (entropy_of(logits + size * push) - entropy_of(logits - size * push)) / (2 * size)
        entropy = entropy_of(logits)
        p = log_p.exp()
        baseline = (p * p * (log_p + entropy[:, None])).sum(-1)
        exact = L.entropy_contribution(log_prob, entropy, advantage, baseline)
        torch.testing.assert_close(exact, change, rtol=1e-5, atol=1e-8)
        sure = change.abs() > 1e-8  # beyond the rounding of the differences
        assert torch.equal(exact.sign()[sure], change.sign()[sure])
        rough = L.entropy_contribution(log_prob, entropy, advantage)
        agree += (rough.sign() == exact.sign())[sure].sum().item()
        total += sure.sum().item()
    share = agree / total
    record_property("eq 6 agrees with eq 5, share of tokens", share)
    print(f"eq 6 agrees with eq 5 on {share:.1%} of {total} sampled tokens")
    assert 0.8 < share < 0.97


def test_the_counterexample_of_the_paper_extract():
    """p = (0.5, 0.45, 0.05), token 2: surprisal below the entropy, yet eq 5 has the other sign."""
    p = torch.tensor([0.5, 0.45, 0.05]).double()
    entropy = -(p * p.log()).sum()
    baseline = L.entropy_baseline(p.log()[None])[0].double()
    exact = L.entropy_contribution(p[1].log(), entropy, torch.tensor(1.0), baseline)
    rough = L.entropy_contribution(p[1].log(), entropy, torch.tensor(1.0))
    assert rough < 0 < exact


@pytest.mark.parametrize("chunk", [1, 7, 1024])
def test_baseline_in_chunks(chunk):
    logits = torch.randn(20, 11, generator=torch.Generator().manual_seed(0))
    p = logits.double().softmax(-1)
    entropy = -(p * p.log()).sum(-1, keepdim=True)
    expected = (p * p * (p.log() + entropy)).sum(-1).float()
    torch.testing.assert_close(L.entropy_baseline(logits, chunk), expected)


def test_regions_by_hand():
    """H = 1 everywhere: surprisal 0.5 is below it, 2 above; the last token is masked out."""
    log_prob = -torch.tensor([[0.5, 2.0, 0.5, 2.0, 1.0, 0.5]])
    A = torch.tensor([[1.0, 1.0, -1.0, -1.0, 1.0, 1.0]])
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]]).bool()
    value = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    sums = L.region_sums(A, log_prob, torch.ones(1, 6), mask, {"v": value, "tokens": mask})
    assert {k: v.item() for k, v in sums.items() if k.endswith("v")} == {
        **{"E1/v": 1, "E2/v": 2, "E3/v": 4, "E4/v": 8}
    }
    change = L.entropy_contribution(log_prob, torch.ones(1, 6), A)
    assert (change[0, :4].sign() == torch.tensor([-1, 1, 1, -1])).all()  # down, up, up, down


def test_what_is_outside_the_mask_does_not_reach_the_regions():
    wild = torch.tensor([[-0.5, float("nan")]]), torch.tensor([[1.0, float("inf")]])
    A, mask = torch.tensor([[1.0, float("nan")]]), torch.tensor([[True, False]])
    value = torch.tensor([[3.0, float("nan")]])
    sums = L.region_sums(A, *wild, mask, {"v": value, "n": mask})
    expected = {"E1/v": 3, "E1/n": 1} | {f"E{i}/{x}": 0 for i in (2, 3, 4) for x in "vn"}
    assert {name: x.item() for name, x in sums.items()} == expected


def test_a_clipped_token_counts_but_changes_no_entropy():
    entropy = torch.nested.as_nested_tensor([torch.ones(3)], layout=torch.jagged)
    log_prob, A = -torch.tensor([[0.5, 0.5, 0.5]]), torch.ones(1, 3)
    clipped = Clipped(
        loss=torch.zeros(1, 3),
        ratio=torch.tensor([[1.0, 2.0, 1.5]]),
        clipped=torch.tensor([[False, True, False]]),
        dual_clipped=torch.tensor([[False, False, True]]),
    )
    mask = torch.ones(1, 3, dtype=torch.bool)
    record = ClippedRecord(clipped, LINES, log_prob, log_prob, A, mask)
    micro = MicroBatch(fields={"entropy": entropy}, records={CLIPPED: record})
    regions.observe_regions(micro)
    sums = micro.sums
    assert sums[f"{regions.PREFIX}E1/tokens"] == 3
    assert sums[f"{regions.PREFIX}E1/clipped"] == 2
    one = L.entropy_contribution(log_prob[0, 0], torch.tensor(1.0), torch.tensor(1.0))
    assert sums[f"{regions.PREFIX}E1/entropy_change"] == pytest.approx(one.item())


def test_a_token_s_region_and_contribution_are_those_of_the_policy_that_sampled():
    """At H = 1 its surprisal was 0.5, E1, and is now 2, which would be E2; the ratio is e^-1.5."""
    one = torch.ones(1, 1)
    no = torch.zeros(1, 1, dtype=torch.bool)
    clipped = Clipped(loss=one, ratio=math.exp(-1.5) * one, clipped=no, dual_clipped=no)
    record = ClippedRecord(
        clipped, LINES, log_prob=-2 * one, old_log_prob=-0.5 * one, advantages=one, mask=~no
    )
    fields = {"entropy": nested(one, torch.tensor([1]))}
    micro = MicroBatch(fields=fields, records={CLIPPED: record})
    regions.observe_regions(micro)
    tokens = [micro.sums[f"{regions.PREFIX}E{i}/tokens"].item() for i in (1, 2, 3, 4)]
    assert tokens == [1, 0, 0, 0]
    change = micro.sums[f"{regions.PREFIX}E1/entropy_change"].item()
    assert change == pytest.approx(-math.exp(-0.5) * (-0.5 + 1) * math.exp(-1.5))


def test_region_metrics_are_shares_of_a_region():
    measured = regions.region_metrics(
        metrics := {
            "actor/pg_loss": 1.0,
            **{f"{regions.PREFIX}bound_{side}": 0.2 for side in ("upper", "lower")},
            **{f"{regions.PREFIX}{r}/tokens": 0.0 for r in ("E2", "E3", "E4")},
            **{f"{regions.PREFIX}{r}/clipped": 0.0 for r in ("E2", "E3", "E4")},
            **{f"{regions.PREFIX}{r}/entropy_change": 0.0 for r in ("E2", "E3", "E4")},
            f"{regions.PREFIX}E1/tokens": 0.4,
            f"{regions.PREFIX}E1/clipped": 0.1,
            f"{regions.PREFIX}E1/entropy_change": -0.03,
        }
    )
    assert metrics == {"actor/pg_loss": 1.0}
    assert measured["clip_entropy/E1/token_share"] == 0.4
    assert measured["clip_entropy/E1/clipped_share"] == pytest.approx(0.25)
    assert measured["clip_entropy/E1/entropy_change"] == -0.03
    assert "clip_entropy/E2/clipped_share" not in measured  # no such token
    assert measured["clip_entropy/bound_upper"] == 0.2


def test_exact_contributions_by_hand():
    log_prob = -torch.tensor([0.5, 2.0])
    baseline = torch.tensor([0.0, 0.5])
    measured = regions.exact_contributions(
        log_prob_N=log_prob,
        entropy_N=torch.ones(2),
        advantages_N=torch.tensor([1.0, 1.0]),
        baseline_N=baseline,
        mask_N=torch.ones(2, dtype=torch.bool),
    )
    first = -torch.tensor(-0.5).exp().item() * 0.5
    second = -(torch.tensor(-2.0).exp().item() * -1.0 - 0.5)
    assert measured["E1/entropy_change"] == pytest.approx(first / 2)
    assert measured["E2/entropy_change"] == pytest.approx(second / 2)
    assert measured["sign_agreement"] == 1.0


def test_the_signs_that_agree_are_counted_among_the_tokens_that_are_pushed():
    """H = 1. The first agrees: -A e^-0.5 0.5 is down. The second does not: e^-2 is up, and e^-2
    - 0.5 down. The third is not pushed, and the fourth, which would agree, no response."""
    measured = regions.exact_contributions(
        log_prob_N=-torch.tensor([0.5, 2.0, 0.5, 0.5]),
        entropy_N=torch.ones(4),
        advantages_N=torch.tensor([1.0, 1.0, 0.0, 9.0]),
        baseline_N=torch.tensor([0.0, -0.5, 0.0, 0.0]),
        mask_N=torch.tensor([True, True, True, False]),
    )
    assert measured["sign_agreement"] == 0.5
    assert measured["E1/entropy_change"] == pytest.approx(-math.exp(-0.5) * 0.5 / 3)
    assert measured["E2/entropy_change"] == pytest.approx((math.exp(-2) - 0.5) / 3)


if __name__ == "__main__":
    one_rank(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
