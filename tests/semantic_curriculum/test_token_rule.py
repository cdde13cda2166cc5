"""SENT's token rule: small cases by hand, verl's kl_cov, and batches split in any way."""

import contextlib
import dataclasses
import itertools

import pytest
import torch

pytest.importorskip("verl")

from builders import actor_config, nested, queue_of, random_tokens, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from tensordict import TensorDict
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from verl.trainer.ppo.core_algos import get_policy_loss_fn
from verl.workers.config import FSDPActorConfig

from recipe.core import actor_loss, clipped_term
from recipe.core.actor_loss import MicroBatch
from recipe.semantic_curriculum import _driver, register, token_rule
from recipe.semantic_curriculum import part as trainer_part
from recipe.semantic_curriculum.config import PRESETS, TokenRule
from recipe.semantic_curriculum.part import TokenRulePart
from recipe.semantic_curriculum.selection import class_means, classify_batch, mini_batch_of_rows
from recipe.semantic_curriculum.token_rule import HIGH_COV, LOW_COV, REST, UNSELECTED, classify


def config(preset="kl_cov", loss_mode="sent", mode="token-mean", **rule) -> FSDPActorConfig:
    return actor_config(
        loss_mode,
        mode,
        kl_cov_ratio=2e-3,
        ppo_kl_coef=1.0,
        token_rule=TokenRule(preset=preset, **rule),
    )


def run(name, data, actor, micro=None, weights=None):
    """Loss, gradient and the sums that were left."""
    log_prob = data["log_prob"].clone().requires_grad_()
    with actor_loss.as_current(MicroBatch(fields=micro or {})) as micro_batch:
        loss, metrics = get_policy_loss_fn(name)(
            **{**data, "log_prob": log_prob},
            loss_agg_mode=actor.loss_agg_mode,
            config=actor,
            rollout_is_weights=weights,
        )
    loss.backward()
    return loss.detach(), log_prob.grad, micro_batch.sums, metrics


# ---- which tokens -----------------------------------------------------------------------------


def by_hand(entropy, log_prob, advantages, low_fraction, side, high, low):
    """The rule in plain Python over lists."""
    n = len(entropy)
    ranked = sorted(range(n), key=lambda i: (entropy[i], i))
    lowest = set(ranked[: min(n, max(1, int(n * low_fraction)))])
    chosen = sorted(lowest if side == "low" else set(range(n)) - lowest)
    if not chosen:
        return [UNSELECTED] * n
    mean = lambda x: sum(x[i] for i in chosen) / len(chosen)  # noqa: E731
    mean_log_prob, mean_advantage = mean(log_prob), mean(advantages)
    cov = {i: (log_prob[i] - mean_log_prob) * (advantages[i] - mean_advantage) for i in chosen}
    classes = [REST if i in set(chosen) else UNSELECTED for i in range(n)]
    for fraction, code, sign in ((high, HIGH_COV, -1), (low, LOW_COV, 1)):
        if fraction:
            k = min(len(chosen), max(1, int(len(chosen) * fraction)))
            for i in sorted(chosen, key=lambda i: (sign * cov[i], i))[:k]:
                classes[i] = code
    return classes


values = st.lists(
    st.tuples(*[st.integers(-8, 8).map(lambda x: x / 4)] * 3), min_size=1, max_size=40
)


@settings(max_examples=300, deadline=None)
@given(
    values,
    st.sampled_from([0.1, 0.5, 0.8, 1.0]),
    st.sampled_from([0.0, 2e-4, 0.1, 0.5]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from(["low", "high"]),
)
def test_classes_are_those_found_by_hand(tokens, low_fraction, high, low, side):
    """Ties included: values are few, and with quarters every sum is exact but the means."""
    entropy, log_prob, advantages = map(list, zip(*tokens, strict=True))
    if side == "high" and low_fraction == 1:
        return
    n = len(tokens)
    expected = by_hand(entropy, log_prob, advantages, low_fraction, side, high, low)
    class_N, cov_N = classify(
        entropy_N=torch.tensor(entropy),
        log_prob_N=torch.tensor(log_prob, dtype=torch.float64),
        advantages_N=torch.tensor(advantages, dtype=torch.float64),
        mask_N=torch.ones(n, dtype=torch.bool),
        low_fraction=low_fraction,
        side=side,
        high_cov_fraction=high,
        low_cov_fraction=low,
    )
    found = class_N.tolist()
    assert [c == UNSELECTED for c in found] == [c == UNSELECTED for c in expected]
    # equal covariances may differ by rounding: the classes then agree in size and in covariance
    for code in (HIGH_COV, LOW_COV):
        ours = sorted(cov_N[class_N == code].tolist())
        theirs = sorted(cov_N[torch.tensor(expected) == code].tolist())
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_case_worked_out():
    """Ten tokens: L is the eight of lowest entropy; log p and A are centred over those eight."""
    entropy = torch.tensor([0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.05])
    log_prob = torch.tensor([-9.0, -1, -1, -1, -1, -3, -3, -3, -9, -3])
    advantages = torch.tensor([5.0, 1, 1, 1, -1, -1, -1, 1, 5, -1])
    class_N, cov_N = classify(
        entropy_N=entropy,
        log_prob_N=log_prob,
        advantages_N=advantages,
        mask_N=torch.ones(10, dtype=torch.bool),
        low_fraction=0.8,
        high_cov_fraction=0.25,
        low_cov_fraction=0.25,
    )
    # means over L are -2 and 0, so Cov = (log p + 2) A: +1 but for tokens 4 and 7, where it is -1
    assert cov_N.tolist() == [0, 1, 1, 1, -1, 1, 1, -1, 0, 1]
    assert class_N.tolist() == [0, 2, 2, 1, 3, 1, 1, 3, 0, 1]


@pytest.mark.parametrize(
    ("count", "fraction", "expected"),
    [
        (0, 0.8, 0),
        (1, 0.1, 1),
        (9, 0.1, 1),
        (10, 0.8, 8),
        (7, 1.0, 7),
        (16_777_217, 1.0, 16_777_217),
    ],
)
def test_a_fraction_is_rounded_down_but_takes_at_least_one(count, fraction, expected):
    assert token_rule.count_of_fraction(torch.tensor(count), fraction) == expected


few_values = st.sampled_from([-1.5, -0.0, 0.0, 1e-30, 0.25, 3.0])  # so that many are equal


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(few_values, st.booleans()), min_size=1, max_size=30), st.floats(0, 1))
def test_the_k_smallest_are_the_first_of_the_sorted_ones(tokens, share):
    """The plain form and the driver's: both are sorted(), which leaves equal values in order."""
    values = [value for value, _ in tokens]
    members = [i for i, (_, member) in enumerate(tokens) if member]
    k = round(share * len(members))
    expected = sorted(sorted(members, key=lambda i: values[i])[:k])
    member_N = torch.tensor([member for _, member in tokens])
    for k_smallest_mask in (token_rule.k_smallest_mask, _driver.k_smallest_mask):
        chosen_N = k_smallest_mask(torch.tensor(values), member_N, torch.tensor(k))
        assert chosen_N.dtype == torch.bool
        assert chosen_N.nonzero().squeeze(1).tolist() == expected


@pytest.mark.parametrize("levels", [10, 1_000_000])
def test_the_driver_selects_what_the_plain_form_selects(levels):
    """On a batch with many ties, and on one with hardly any."""
    generator = torch.Generator().manual_seed(0)
    values_N = torch.randint(0, levels, (20_000,), generator=generator) / levels
    member_N = torch.rand(20_000, generator=generator) < 0.7
    members = int(member_N.sum())
    for k in (0, 1, 4, members // 2, int(0.8 * members), members - 1, members):
        plain_N = token_rule.k_smallest_mask(values_N, member_N, torch.tensor(k))
        assert plain_N.count_nonzero() == k
        assert torch.equal(_driver.k_smallest_mask(values_N, member_N, torch.tensor(k)), plain_N)


def made(preset, **rule):
    """A preset's rule, with thresholds for those that leave them to the user."""
    if PRESETS[preset].low_fraction is None:
        rule = {"low_threshold": 0.7, "high_cov_threshold": 0.05, **rule}
    return TokenRule(preset=preset, **rule)


def rule_of(preset, **rule):
    """The arguments of classify that a preset sets."""
    return made(preset, **rule).selection


def tokens_of(seed, n=400):
    generator = torch.Generator().manual_seed(seed)
    return dict(
        entropy_N=torch.rand(n, generator=generator),
        log_prob_N=-torch.rand(n, generator=generator),
        advantages_N=torch.randn(n, generator=generator),
        mask_N=torch.rand(n, generator=generator) < 0.8,
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e30])
@pytest.mark.parametrize("preset", PRESETS)
def test_tokens_outside_the_mask_change_nothing(preset, value):
    data, rule = tokens_of(0), rule_of(preset)
    class_N, cov_N = classify(**data, **rule)
    assert not class_N[~data["mask_N"]].any() and not cov_N[~data["mask_N"]].any()
    for name in ("entropy_N", "log_prob_N", "advantages_N"):
        data[name] = torch.where(data["mask_N"], data[name], value)
    other_class_N, other_cov_N = classify(**data, **rule)
    assert torch.equal(other_class_N, class_N) and torch.equal(other_cov_N, cov_N)


def test_a_selection_by_entropy_without_entropies_is_refused():
    data = tokens_of(0) | {"entropy_N": None}
    with pytest.raises(ValueError, match="give entropy_N"):
        classify(**data, **rule_of("as_described"))
    class_N, _ = classify(**data, **rule_of("as_described", low_fraction=1.0))
    assert torch.equal(class_N > 0, data["mask_N"])


def test_log_probs_in_bf16_are_centred_in_float32():
    data, rule = tokens_of(1), rule_of("as_described", high_cov_fraction=0.1)
    data["log_prob_N"] = data["log_prob_N"].bfloat16()
    class_N, cov_N = classify(**data, **rule)
    expected_N, expected_cov_N = classify(
        **data | {"log_prob_N": data["log_prob_N"].float()}, **rule
    )
    assert cov_N.dtype == torch.float32
    assert torch.equal(class_N, expected_N) and torch.equal(cov_N, expected_cov_N)


@pytest.mark.parametrize("device", ["meta", "fake"])
@pytest.mark.parametrize("preset", PRESETS)
def test_the_selection_in_the_loss_copies_nothing_to_the_host(preset, device):
    """On meta and fake tensors, which hold no values, a read of one raises; so it does on purpose
    in the driver's form."""
    data = {name: x.to("meta") for name, x in tokens_of(2).items()}
    context = FakeTensorMode() if device == "fake" else contextlib.nullcontext()
    with context:
        if device == "fake":
            data = {name: torch.empty(x.shape, dtype=x.dtype) for name, x in data.items()}
        class_N, cov_N = classify(**data, **rule_of(preset))
        beta_N = token_rule.value_per_token(class_N, (0.0, 0.1, 0.2, 0.3))
        sums = token_rule.class_sums(class_N, data["mask_N"], {"covariance": cov_N})
        assert class_N.dtype == torch.int8 and cov_N.dtype == beta_N.dtype == torch.float32
        assert class_N.shape == cov_N.shape == beta_N.shape == (400,)
        assert all(x.ndim == 0 for x in sums.values())
        if rule_of(preset)["low_fraction"] not in (None, 1):
            with pytest.raises((RuntimeError, DataDependentOutputException)):
                classify(**data, **rule_of(preset), k_smallest=_driver.k_smallest_mask)


def test_each_token_gets_the_value_of_its_class():
    class_BT = torch.tensor([[0, 1], [2, 3]], dtype=torch.int8)
    beta_BT = token_rule.value_per_token(class_BT, (0.0, 0.05, 0.2, 0.5))
    assert torch.equal(beta_BT, torch.tensor([[0.0, 0.05], [0.2, 0.5]]))


def test_sums_and_means_of_classes():
    class_N = torch.tensor([0, 1, 1, 2, 0, 1], dtype=torch.int8)
    mask_N = torch.tensor([1, 1, 1, 1, 0, 0]).bool()
    entropy_N = torch.tensor([0.5, 1.0, 2.0, 4.0, float("nan"), float("inf")])
    sums = token_rule.class_sums(class_N, mask_N, {"entropy": entropy_N})
    assert {name: x.item() for name, x in sums.items()} == {
        "unselected/tokens": 1,
        "unselected/entropy": 0.5,
        "rest/tokens": 2,
        "rest/entropy": 3.0,
        "high_cov/tokens": 1,
        "high_cov/entropy": 4.0,
        "low_cov/tokens": 0,
        "low_cov/entropy": 0.0,
    }
    means = class_means(class_N, mask_N, {"entropy": entropy_N}, ("unselected", "rest", "low_cov"))
    assert means == {"unselected/entropy": 0.5, "rest/entropy": 1.5}  # no token is low_cov


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 8), min_size=1, max_size=6),
    fraction=st.sampled_from([0.1, 0.5, 0.8]),
    data=st.data(),
)
def test_by_response_each_row_has_its_own_share(lengths, fraction, data):
    n = sum(lengths)
    x = data.draw(st.lists(few_values, min_size=n, max_size=n))
    member = data.draw(st.lists(st.booleans(), min_size=n, max_size=n))
    row = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    expected = []
    for r in range(len(lengths)):
        members = [i for i in range(n) if row[i] == r and member[i]]
        k = max(int(len(members) * fraction), 1) if members else 0
        expected += sorted(members, key=lambda i: (x[i], i))[:k]
    for k_smallest in (token_rule.k_smallest_mask, _driver.k_smallest_mask):
        class_N, _ = classify(
            entropy_N=torch.tensor(x, dtype=torch.float32),
            log_prob_N=torch.zeros(n),
            advantages_N=torch.zeros(n),
            mask_N=torch.tensor(member, dtype=torch.bool),
            low_fraction=fraction,
            high_cov_fraction=0,
            low_cov_fraction=0,
            length_R=torch.tensor(lengths),
            k_smallest=k_smallest,
        )
        assert (class_N == REST).nonzero().squeeze(1).tolist() == sorted(expected)


# ---- however it is split ----------------------------------------------------------------------


def flat_batch(seed, rows=24):
    generator = torch.Generator().manual_seed(seed)
    length_B = torch.randint(1, 30, (rows,), generator=generator)
    n = int(length_B.sum())
    return dict(
        # few values, so that there are many ties for the order to decide
        entropy_N=torch.randint(0, 12, (n,), generator=generator) / 4,
        log_prob_N=-torch.randint(0, 12, (n,), generator=generator) / 4,
        advantages_N=(torch.randint(-1, 2, (rows,), generator=generator) * 1.0).repeat_interleave(
            length_B
        ),
        mask_N=torch.rand(n, generator=generator) < 0.9,
        length_B=length_B,
    )


@pytest.mark.parametrize("scope", ["mini_batch", "response"])
@pytest.mark.parametrize("seed", range(5))
def test_selection_does_not_depend_on_the_ranks(scope, seed):
    """The same mini-batches, held by one rank or dealt out to two or three, in any row order."""
    rule = TokenRule(preset="as_described", scope=scope, high_cov_fraction=0.1)
    data = flat_batch(seed)
    rows = len(data["length_B"])
    name_B = torch.randperm(rows, generator=torch.Generator().manual_seed(seed + 100))
    one = mini_batch_of_rows(rows, 1, 12, False, 0)
    expected, _ = classify_batch(rule, **data, mini_batch_B=one, order_B=name_B.argsort())
    of_row = expected.split(data["length_B"].tolist())
    selected_B = torch.stack([(part != token_rule.UNSELECTED).sum() for part in of_row])
    tokens_B = torch.stack([part.sum() for part in data["mask_N"].split(data["length_B"].tolist())])
    by_row = torch.equal(selected_B, token_rule.count_of_fraction(tokens_B, 0.8))
    assert by_row == (scope == "response")
    for ranks in (2, 3):
        where = mini_batch_of_rows(rows, ranks, 12, False, 0)
        # rows moved so that each mini-batch has the rows that it had on one rank
        moved_from = torch.empty(rows, dtype=torch.long)
        for number in range(int(one.max()) + 1):
            members = (one == number).nonzero().squeeze(1)
            shuffle = torch.randperm(len(members), generator=torch.Generator().manual_seed(seed))
            moved_from[where == number] = members[shuffle]
        moved = {}
        for key, value in data.items():
            if key == "length_B":
                moved[key] = value[moved_from]
            else:
                parts = value.split(data["length_B"].tolist())
                moved[key] = torch.cat([parts[i] for i in moved_from])
        found, _ = classify_batch(
            rule, **moved, mini_batch_B=where, order_B=name_B[moved_from].argsort()
        )
        parts = found.split(moved["length_B"].tolist())
        for part, source in zip(parts, moved_from.tolist(), strict=True):
            assert torch.equal(part, of_row[source])


@pytest.mark.parametrize("scope", ["mini_batch", "response", "batch"])
def test_equal_values_are_chosen_among_by_the_order_of_the_prompts(scope):
    """Without a correct rollout every covariance is 0: verl's random names must not decide, or two
    runs with one seed are two updates."""
    rule = TokenRule(preset="as_described", scope=scope, high_cov_fraction=0.1)
    rows, width = 8, 10
    lengths = torch.full((rows,), width)
    zeros = torch.zeros(rows, width)
    actor = {"ppo_mini_batch_size": 1, "shuffle": False, "data_loader_seed": 0}
    config = {"actor": actor, "rollout": {"n": 4}}
    chosen = []
    for names in ("abcdefgh", "hgfedcba"):
        fields = {name: nested(zeros, lengths) for name in ("old_log_probs", "entropy")}
        fields["advantages"] = nested(zeros, lengths)
        fields["response_mask"] = nested(torch.ones(rows, width, dtype=torch.long), lengths)
        step = step_of(list(names), config=OmegaConf.create({"actor_rollout_ref": config}))
        with queue_of(fields):
            TokenRulePart(rule).before_update(step)
        chosen.append(fields[register.CLASS_FIELD].values().reshape(rows, width))
    assert torch.equal(*chosen)
    first = chosen[0][0]  # 40 tokens of a mini-batch: 32 of them in L, 3 of these of covariance 0
    if scope == "mini_batch":
        assert (first[:3] == token_rule.HIGH_COV).all() and (first[3:] == token_rule.REST).all()
        assert (chosen[0][3, 2:] == token_rule.UNSELECTED).all()


@pytest.mark.parametrize("scope", ["mini_batch", "response"])
@pytest.mark.parametrize("preset", PRESETS)
def test_a_batch_is_classified_mini_batch_by_mini_batch(preset, scope):
    """By the plain form, over each mini-batch's tokens in the order of its rows."""
    if PRESETS[preset].policy_tokens == "selected" and scope == "response":
        return
    rule = made(preset, scope=scope)
    data = flat_batch(11)
    length_B = data.pop("length_B")
    generator = torch.Generator().manual_seed(12)
    mini_batch_B = torch.arange(24)[torch.randperm(24, generator=generator)] % 3
    order_B = torch.randperm(24, generator=generator)
    class_N, cov_N = classify_batch(
        rule, **data, length_B=length_B, mini_batch_B=mini_batch_B, order_B=order_B
    )
    token_N = torch.arange(len(class_N)).split(length_B.tolist())
    for number in range(3):
        row_R = [row for row in order_B.tolist() if mini_batch_B[row] == number]
        token_M = torch.cat([token_N[row] for row in row_R])
        expected_M, expected_cov_M = classify(
            **{name: x[token_M] for name, x in data.items()},
            **rule_of(preset),
            length_R=length_B[row_R] if scope == "response" else None,
        )
        assert torch.equal(class_N[token_M], expected_M)
        assert torch.equal(cov_N[token_M], expected_cov_M)


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("ranks", "mini_batch"), [(1, 8), (2, 8), (4, 8), (2, 32)])
def test_mini_batches_are_those_that_verl_makes(ranks, mini_batch, shuffle):
    """Against the very loop of verl's worker, whose collectives and engine are left out."""
    from verl.utils import tensordict_utils as tu

    rows = 32
    where = mini_batch_of_rows(rows, ranks, mini_batch, shuffle, seed=42)
    assert where.bincount().tolist() == [mini_batch] * (rows // mini_batch)
    share = rows // ranks
    for rank in range(ranks):
        mine = TensorDict({"row": torch.arange(rank * share, (rank + 1) * share)}, [share])
        loop = tu.make_iterator(mine, mini_batch // ranks, 1, 42 + rank, {"shuffle": shuffle})
        for number, part in enumerate(loop):
            assert where[part["row"]].tolist() == [number] * (mini_batch // ranks)


def test_the_part_asks_for_the_mini_batches_of_the_run_s_settings(monkeypatch):
    asked = []

    def of_rows(*arguments):
        asked.append(arguments)
        return torch.zeros(8, dtype=torch.long)

    monkeypatch.setattr(trainer_part, "mini_batch_of_rows", of_rows)
    lengths, ones = torch.ones(8, dtype=torch.long), torch.ones(8, 1)
    fields = {k: nested(ones, lengths) for k in ("old_log_probs", "entropy", "advantages")}
    fields["response_mask"] = nested(ones.long(), lengths)
    actor = {"ppo_mini_batch_size": 1, "shuffle": True, "data_loader_seed": 7}
    config = {"actor_rollout_ref": {"actor": actor, "rollout": {"n": 4}}}
    step = step_of(list("abcdefgh"), config=OmegaConf.create(config))
    step.ranks = 2
    with queue_of(fields):
        TokenRulePart(TokenRule(preset="as_described")).before_update(step)
    # rows, ranks, rows of a mini-batch, shuffle, seed
    assert asked == [(8, 2, 4, True, 7)]


@pytest.mark.parametrize("split", [(16,), (8, 8), (1,) * 16, (3, 13)])
def test_loss_and_gradient_do_not_depend_on_micro_batches(split):
    """Normalised over the mini-batch, with classes chosen before: the parts add up."""
    data = random_tokens()
    lengths = data["response_mask"].sum(1)
    generator = torch.Generator().manual_seed(3)
    class_BT = torch.randint(0, 4, data["log_prob"].shape, generator=generator).to(torch.int8)
    ref = data["old_log_prob"] + 0.1 * torch.randn(class_BT.shape, generator=generator)
    actor = config("as_described", low_cov_fraction=0.1, low_cov_coef=0.3)
    actor.global_batch_info.update(dp_size=1, batch_num_tokens=int(lengths.sum()))

    def parts(sizes):
        rows = torch.arange(16).split(list(sizes))
        total, sums, gradients = 0, {}, []
        for index in rows:
            micro = {
                register.CLASS_FIELD: nested(class_BT[index], lengths[index]),
                "ref_log_prob": nested(ref[index], lengths[index]),
            }
            width = max(1, int(lengths[index].max()))
            part = {k: v[index][:, :width] for k, v in data.items()}
            loss, gradient, left, _ = run("sent", part, actor, micro)
            total = total + loss
            gradients.append(torch.nn.functional.pad(gradient, (0, 80 - width)))
            for name, value in left.items():
                sums[name] = sums.get(name, 0) + value
        return total, torch.cat(gradients), sums

    whole, whole_gradient, whole_sums = parts((16,))
    loss, gradient, sums = parts(split)
    torch.testing.assert_close(loss, whole)
    torch.testing.assert_close(gradient, whole_gradient)
    for name, value in sums.items():
        torch.testing.assert_close(value, whole_sums[name], check_dtype=False)


# ---- the loss ---------------------------------------------------------------------------------

MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weighted", [False, True])
def test_the_kl_cov_preset_is_verls_kl_cov(seed, mode, weighted):
    data = random_tokens(seed, rows=32, tokens=200)
    actor = config("kl_cov", mode=mode)
    weights = torch.rand(32, 200) + 0.5 if weighted else None
    loss, gradient, sums, metrics = run("sent", data, actor, weights=weights)
    theirs, their_gradient, _, their_metrics = run("kl_cov", data, actor, weights=weights)
    assert sums["actor/sent/high_cov/tokens"] == int(2e-3 * data["response_mask"].sum())
    torch.testing.assert_close(loss, theirs, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient, their_gradient, rtol=1e-6, atol=1e-9)
    assert metrics["actor/ppo_kl"] == pytest.approx(their_metrics["actor/ppo_kl"], rel=1e-6)
    _, other_gradient, _, _ = run("sent", data, config("kl_cov", mode=mode, high_cov_coef=0))
    assert not torch.equal(gradient, other_gradient)  # the rule did something


def test_the_described_loss_in_closed_form():
    """One response of four tokens, one in each class, at ratio 1.1 and A = 2, clipped at 1.2."""
    old = torch.full((1, 4), -1.0)
    log_prob = old + torch.log(torch.tensor(1.1))
    ref = old + torch.log(torch.tensor(1.3))
    micro = {
        register.CLASS_FIELD: nested(torch.arange(4, dtype=torch.int8)[None], torch.tensor([4])),
        "ref_log_prob": nested(ref, torch.tensor([4])),
    }
    data = dict(
        old_log_prob=old,
        log_prob=log_prob,
        advantages=torch.full((1, 4), 2.0),
        response_mask=torch.ones(1, 4, dtype=torch.bool),
    )
    actor = config("as_described", low_cov_fraction=0.1, low_cov_coef=0.5)
    loss, gradient, sums, _ = run("sent", data, actor, micro)
    r = torch.tensor(1.3 / 1.1)  # reference over policy
    k3 = r - r.log() - 1
    betas = torch.tensor([0.0, 0.05, 0.2, 0.5])
    torch.testing.assert_close(loss, (-2 * 1.1 + betas * k3).mean())
    # d k3 / d log p = 1 - r
    torch.testing.assert_close(gradient, ((-2 * 1.1 + betas * (1 - r)) / 4)[None])
    for name in token_rule.CLASSES:
        assert sums[f"actor/sent/{name}/tokens"] == 1
        torch.testing.assert_close(sums[f"actor/sent/{name}/kl"], k3)


def test_with_no_coefficient_it_is_the_clipped_loss():
    data = random_tokens(4)
    lengths = data["response_mask"].sum(1)
    classes = nested(torch.ones(16, 80, dtype=torch.int8), lengths)
    actor = config("as_described", coef=0, high_cov_coef=0)
    loss, gradient, _, _ = run("sent", data, actor, {register.CLASS_FIELD: classes})
    vanilla, its_gradient, _, _ = run("vanilla", data, actor)
    assert torch.equal(loss, vanilla)
    assert torch.equal(gradient, its_gradient)


def test_the_released_rule_takes_the_current_policys_entropies():
    """L is 80 % of the micro-batch by the entropies of the training pass; the two ends of L."""
    data = random_tokens(5, rows=8, tokens=50)
    lengths = data["response_mask"].sum(1)
    entropy = torch.rand(8, 50)
    prompt = torch.ones(8, dtype=torch.long)
    rows = [torch.nn.functional.pad(e[:n], (0, 1)) for e, n in zip(entropy, lengths, strict=True)]
    output = torch.cat(rows)  # of prompts of one token, shifted by one, as verl has it
    ids = nested(torch.zeros(8, 50), lengths)
    micro = TensorDict(
        {"prompts": nested(torch.zeros(8, 1), prompt), "responses": ids},
        batch_size=[8],
    )
    actor = config("as_released", high_cov_fraction=0.1, low_cov_fraction=0.1)
    width = int(lengths.max())
    part = {k: v[:, :width] for k, v in data.items()}
    with actor_loss.as_current(MicroBatch(fields=micro, output={"entropy": output})) as micro:
        loss, _ = register.sent_loss(**part, config=actor)
    mask = part["response_mask"]
    class_N, _ = classify(
        entropy_N=entropy[:, :width].flatten(),
        log_prob_N=part["log_prob"].flatten(),
        advantages_N=part["advantages"].flatten(),
        mask_N=mask.flatten(),
        low_fraction=0.8,
        high_cov_fraction=0.1,
        low_cov_fraction=0.1,
    )
    log_ratio = part["log_prob"] - part["old_log_prob"]
    beta = torch.tensor([0, 0, 0.2, 0.05])[class_N.long()].view(mask.shape)
    expected = (-part["advantages"] * log_ratio.exp() + beta * log_ratio.abs())[mask].mean()
    torch.testing.assert_close(loss, expected)
    low = int(0.8 * mask.sum())
    assert micro.sums["actor/sent/high_cov/tokens"] == int(0.1 * low)
    assert micro.sums["actor/sent/unselected/tokens"] == mask.sum() - low


def test_the_observers_see_no_advantage_of_a_token_without_a_policy_term():
    """BAPO's sums and the regions' are of the policy terms that the loss has."""
    data = random_tokens(6)
    lengths = data["response_mask"].sum(1)
    class_BT = torch.arange(data["log_prob"].numel()).view(data["log_prob"].shape) % 2
    assert {UNSELECTED, REST} == {0, 1}
    fields = {register.CLASS_FIELD: nested(class_BT.to(torch.int8), lengths)}
    micro_batch = MicroBatch(fields=fields)
    actor = config("high_entropy_mask")
    with actor_loss.as_current(micro_batch):
        register.sent_loss(**data, config=actor, loss_agg_mode=actor.loss_agg_mode)
    left_BT = micro_batch.records[clipped_term.CLIPPED].advantages[data["response_mask"]]
    class_N = class_BT[data["response_mask"]]
    expected = data["advantages"][data["response_mask"]] * (class_N == REST)
    assert torch.equal(left_BT, expected) and left_BT.any()


def test_the_mask_is_a_mean_over_the_kept_tokens():
    """80/20: only the tokens of highest entropy push, and the mean is theirs alone."""
    data = random_tokens(6)
    lengths = data["response_mask"].sum(1)
    tokens = int(lengths.sum())
    generator = torch.Generator().manual_seed(0)
    class_N, _ = classify(
        entropy_N=torch.rand(tokens, generator=generator),
        log_prob_N=torch.zeros(tokens),
        advantages_N=torch.zeros(tokens),
        mask_N=torch.ones(tokens, dtype=torch.bool),
        low_fraction=0.8,
        side="high",
        high_cov_fraction=0,
        low_cov_fraction=0,
    )
    kept = class_N == REST
    assert kept.sum() == tokens - int(0.8 * tokens)
    rows = list(class_N.split(lengths.tolist()))
    micro = {register.CLASS_FIELD: torch.nested.as_nested_tensor(rows, layout=torch.jagged)}
    width = int(lengths.max())
    part = {k: v[:, :width] for k, v in data.items()}
    actor = config("high_entropy_mask")
    actor.global_batch_info.update(dp_size=1, batch_num_tokens=tokens)
    loss, gradient, _, _ = run("sent", part, actor, micro)
    ratio = (part["log_prob"] - part["old_log_prob"]).exp()
    A = part["advantages"]
    each = torch.maximum(-A * ratio, -A * ratio.clamp(0.8, 1.2))
    torch.testing.assert_close(loss, each[part["response_mask"]][kept].mean())
    assert not gradient[part["response_mask"]][~kept].any()


# ---- settings ---------------------------------------------------------------------------------


SENT = {  # its loss with no token held to anything
    "loss_mode": "sent",
    "order": "none",
    "low_fraction": 0.8,
    "low_threshold": None,
    "side": "low",
    "scope": "mini_batch",
    "cov_mean_over": "selected",
    "high_cov_fraction": 0.0,
    "high_cov_threshold": None,
    "low_cov_fraction": 0.0,
    "coef": 0.0,
    "high_cov_coef": 0.0,
    "low_cov_coef": 0.0,
    "anchor": "old",
    "estimator": "abs",
    "clip": True,
    "policy_tokens": "all",
    "clip_ratio_low": 0.2,
    "clip_ratio_high": 0.2,
    "calculate_entropy": False,
    "use_kl_loss": False,
    "kl_loss_coef": 0.0,
    "entropy_coeff": 0.0,
    "loss_agg_mode": "token-mean",
    "adv_estimator": "grpo",
    "asymgrpo_preset": "grpo",
}
DESCRIBED = {
    "high_cov_fraction": 0.0002,
    "coef": 0.05,
    "high_cov_coef": 0.2,
    "anchor": "ref",
    "estimator": "k3",
    "use_kl_loss": True,
}
PAPER = DESCRIBED | {
    "low_fraction": None,
    "high_cov_fraction": None,
    "scope": "batch",
    "cov_mean_over": "all",
    "loss_agg_mode": "seq-mean-token-mean",
}
RELEASED = {
    "scope": "micro_batch",
    "high_cov_fraction": 0.0002,
    "low_cov_fraction": 0.0002,
    "high_cov_coef": 0.2,
    "low_cov_coef": 0.05,
    "clip": False,
    "calculate_entropy": True,
    "use_kl_loss": True,
    "kl_loss_coef": 0.001,
}
BY_ENTROPY = {"order": "semantic_entropy"}
CLIPPED = {"loss_mode": "dynamic_clip"}
FROM_SENT = {  # what the paper, its figure, the released code and other papers have otherwise
    "sent": DESCRIBED | BY_ENTROPY,
    "sent_paper": PAPER | BY_ENTROPY,
    "sent_released": RELEASED | BY_ENTROPY,
    "curriculum": CLIPPED | BY_ENTROPY,
    "as_described": DESCRIBED,
    "paper": PAPER,
    "as_released": RELEASED,
    "grpo": CLIPPED,
    "entropy_bonus": CLIPPED | {"entropy_coeff": 0.001},
    "entropy_advantage": CLIPPED
    | {"adv_estimator": "asymgrpo", "asymgrpo_preset": "grpo_entropy_adv"},
    "high_entropy_mask": {"side": "high", "policy_tokens": "selected"},
    "clip_cov": {"loss_mode": "clip_cov", "clip_ratio_low": 1.0, "clip_ratio_high": 1.0},
    "kl_cov": {
        "low_fraction": 1.0,
        "scope": "micro_batch",
        "high_cov_fraction": 0.002,
        "high_cov_coef": 1.0,
        "clip": False,
    },
    "high_entropy_kl": DESCRIBED | {"side": "high"},
}


def test_the_presets_have_the_values_of_their_papers():
    expected = {name: SENT | changed for name, changed in FROM_SENT.items()}
    assert {name: dataclasses.asdict(preset) for name, preset in PRESETS.items()} == expected


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fills_the_rule(preset):
    """With its own values; the thresholds that it leaves to the user are those of `made`."""
    rule, values = dataclasses.asdict(made(preset)), SENT | FROM_SENT[preset]
    given = {"low_threshold": 0.7, "high_cov_threshold": 0.05}
    expected = values | given if values["low_fraction"] is None else values
    assert rule == {name: expected[name] for name in rule.keys() - {"preset"}} | {"preset": preset}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "sentt"}, "did you mean sent"),
        ({"low_fraction": 0}, "above 0, at most 1"),
        ({"low_fraction": 1.5}, "above 0, at most 1"),
        ({"high_cov_fraction": -0.1}, "from 0 to 1"),
        ({"coef": -1}, "from 0 up"),
        ({"coef": float("nan")}, "from 0 up"),
        ({"anchor": "reference"}, "one of ref, old"),
        ({"estimator": "k4"}, "one of abs, k1, k2, k3"),
        ({"scope": "step"}, "micro_batch, mini_batch, batch, response"),
        ({"cov_mean_over": "batch"}, "one of selected, all"),
        ({"low_threshold": 0}, "above 0"),
        ({"high_cov_threshold": float("inf")}, "a finite number"),
        ({"side": "high", "low_fraction": 1.0}, "leaves no token"),
        ({"policy_tokens": "selected", "scope": "response"}, "no scope=response"),
        ({"policy_tokens": "selected", "scope": "batch"}, "no scope=batch"),
        ({"policy_tokens": "selected", "low_threshold": 0.5}, "use low_fraction"),
        ({"low_fraction": 0.8, "low_threshold": 0.5}, "say the same thing twice"),
        ({"high_cov_fraction": 0, "high_cov_threshold": 0.5}, "say the same thing twice"),
        (
            {"preset": "paper"},
            "low_threshold is not given: .* `python -m recipe.semantic_curriculum.calibrate`",
        ),
        ({"preset": "paper", "low_threshold": 0.5}, "high_cov_threshold is not given"),
        ({"preset": "sent_paper", "high_cov_threshold": 0.5}, "low_threshold is not given"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_sentence(settings, said):
    with pytest.raises(ValueError, match=said) as error:
        TokenRule(**settings)
    assert "policy_loss.token_rule" in str(error.value)


def test_a_loss_without_what_it_needs_says_what_to_do():
    data = random_tokens()
    for preset, said in (
        ("as_described", "trainer_mode=recipe_sync"),
        ("as_released", "calculate_entropy=true"),
    ):
        with pytest.raises(ValueError, match=said):
            run("sent", data, config(preset))
    classes = {register.CLASS_FIELD: nested(torch.ones(16, 80), data["response_mask"].sum(1))}
    with pytest.raises(ValueError, match="use_kl_loss=true"):
        run("sent", data, config("as_described"), classes)


def test_estimators_and_anchors_are_all_distinct():
    """Each switch reaches the loss."""
    data = random_tokens(7)
    lengths = data["response_mask"].sum(1)
    micro = {
        register.CLASS_FIELD: nested(torch.full((16, 80), HIGH_COV), lengths),
        "ref_log_prob": nested(data["old_log_prob"] - 0.3, lengths),
    }
    losses = [
        run("sent", data, config("as_described", anchor=a, estimator=e, clip=c), micro)[0].item()
        for a, e, c in itertools.product(("ref", "old"), ("abs", "k1", "k2", "k3"), (True, False))
    ]
    assert len(set(losses)) == 16


# ---- importance weights --------------------------------------------------------------------------


def test_importance_weights_make_policy_term_and_kl_expectations_under_the_old_policy():
    """Four tokens a, b, b, b sampled by a rollout policy q = (1/4, 3/4); the old policy is (1/2,
    1/2), so that w = pi_old / q is 2 and 2/3. The loss must be that of two a and two b, unweighted.
    """
    old, new = torch.tensor(0.5).log(), torch.tensor([0.6, 0.4]).log()
    actor = config("kl_cov", low_fraction=1.0, high_cov_fraction=0.0, coef=0.3, anchor="old")

    def loss_of(tokens: list[int], weights: list[float] | None) -> tuple[float, float]:
        shape = (len(tokens), 1)
        data = {
            "old_log_prob": old.expand(shape),
            "log_prob": new[tokens].view(shape),
            "advantages": torch.tensor([1.0, -0.5])[tokens].view(shape),
            "response_mask": torch.ones(shape, dtype=torch.bool),
        }
        weights_BT = None if weights is None else torch.tensor(weights).view(shape)
        loss, gradient, _, _ = run("sent", data, actor, weights=weights_BT)
        return loss.item(), gradient.sum().item()

    weighted = loss_of([0, 1, 1, 1], [2.0, 2 / 3, 2 / 3, 2 / 3])
    assert weighted == pytest.approx(loss_of([0, 0, 1, 1], None), rel=1e-6)
    # by hand: -(1 x 1.2 - 0.5 x 0.8) / 2 + 0.3 (|ln 1.2| + |ln 0.8|) / 2
    assert weighted[0] == pytest.approx(-0.4 + 0.3 * (0.182322 + 0.223144) / 2, rel=1e-5)
