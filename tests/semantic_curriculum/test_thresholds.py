"""SENT's token rule by thresholds, as the method section has it: small cases by hand, the fraction
rule at the data's quantiles, finite differences, and batches split in any way."""

import math

import pytest
import torch

pytest.importorskip("verl")

from builders import actor_config, nested, queue_of, step_of
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from verl.trainer.ppo.core_algos import get_policy_loss_fn

from recipe.core import actor_loss
from recipe.core.actor_loss import EXTRA_INFO, MicroBatch
from recipe.semantic_curriculum import register, token_rule
from recipe.semantic_curriculum.calibrate import thresholds_of
from recipe.semantic_curriculum.config import PRESETS, TokenRule
from recipe.semantic_curriculum.part import TokenRulePart
from recipe.semantic_curriculum.token_rule import HIGH_COV, REST, UNSELECTED, classify

BETA = (0.0, 0.05, 0.2, 0.0)


# ---- which tokens -----------------------------------------------------------------------------


def test_a_case_worked_out():
    """tau_H 0.5 and tau_cov 1: a threshold itself is outside; means over all five tokens."""
    class_N, cov_N = classify(
        entropy_N=torch.tensor([0.1, 0.5, 0.4, 0.3, 0.2]),
        log_prob_N=torch.tensor([-1.0, -7.0, -4.0, -2.0, -1.0]),  # mean -3
        advantages_N=torch.tensor([1.0, 1.0, -1.0, 1.0, -2.0]),  # mean 0
        mask_N=torch.ones(5, dtype=torch.bool),
        low_threshold=0.5,
        cov_mean_over="all",
        high_cov_threshold=1.0,
    )
    # (log p + 3) A: 2, outside L, (-1)(-1) = 1, 1, 2 x -2
    assert cov_N.tolist() == [2, 0, 1, 1, -4]
    assert class_N.tolist() == [HIGH_COV, UNSELECTED, REST, REST, REST]


def test_the_means_are_over_the_tokens_that_are_asked_for():
    """Of L alone, {-1, -2, -3}: -2; of all, {-1, -2, -3, -6}: -3; or as given."""
    data = dict(
        entropy_N=torch.tensor([0.1, 0.2, 0.3, 0.9]),
        log_prob_N=torch.tensor([-1.0, -2.0, -3.0, -6.0]),
        advantages_N=torch.tensor([1.0, 1.0, -2.0, 0.0]),
        mask_N=torch.ones(4, dtype=torch.bool),
        low_threshold=0.5,
    )
    assert classify(**data)[1].tolist() == [1, 0, 2, 0]  # (log p + 2) A, whose mean is 0 on both
    assert classify(**data, cov_mean_over="all")[1].tolist() == [2, 1, 0, 0]
    means = token_rule.Means(-4.0, 1.0)
    assert classify(**data, means=means)[1].tolist() == [0, 0, -3, 0]


@pytest.mark.parametrize(("side", "expected"), [("low", [1, 0, 0, 0]), ("high", [0, 1, 1, 0])])
def test_the_complement_of_a_threshold(side, expected):
    class_N, _ = classify(
        entropy_N=torch.tensor([0.1, 0.5, 0.9, 0.1]),
        log_prob_N=torch.zeros(4),
        advantages_N=torch.zeros(4),
        mask_N=torch.tensor([1, 1, 1, 0]).bool(),
        low_threshold=0.5,
        side=side,
    )
    assert class_N.tolist() == expected


numbers = st.lists(st.integers(-500, 500), min_size=2, max_size=60, unique=True)


@settings(max_examples=200, deadline=None)
@given(numbers, st.data(), st.sampled_from([0.1, 0.5, 0.8]), st.sampled_from([0.02, 0.1, 0.5]))
def test_thresholds_at_the_datas_quantiles_are_the_fraction_rule(entropy, data, low, high):
    """The very same classes, without ties; a fraction takes at least one token, so do these."""
    n = len(entropy)
    draw = lambda: torch.tensor(data.draw(st.lists(st.integers(-99, 99), min_size=n, max_size=n)))  # noqa: E731
    entropy_N = (torch.tensor(entropy) + 501) / 100
    log_prob_N, advantages_N = -draw().abs() / 7 - torch.arange(n) / 1e4, draw() / 11
    mask_N = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    if mask_N.sum() * low < 1:
        return
    tokens = dict(
        entropy_N=entropy_N, log_prob_N=log_prob_N, advantages_N=advantages_N, mask_N=mask_N
    )
    class_N, cov_N = classify(
        **tokens, low_fraction=low, cov_mean_over="all", high_cov_fraction=high
    )
    selected_N = class_N != UNSELECTED
    if selected_N.sum() * high < 1 or len(set(cov_N[selected_N].tolist())) < selected_N.sum():
        return
    chosen = thresholds_of(
        entropy_N[mask_N], log_prob_N[mask_N], advantages_N[mask_N], low=low, high_cov=high
    )
    found_N, found_cov_N = classify(
        **tokens,
        low_threshold=chosen.low_threshold,
        cov_mean_over="all",
        high_cov_threshold=chosen.high_cov_threshold,
    )
    assert torch.equal(found_N, class_N)
    assert torch.equal(found_cov_N, cov_N)


# ---- the loss -----------------------------------------------------------------------------------

ROWS, TOKENS = 16, 12


def tokens_of(seed=0):
    """Old and new log-probs, advantages, entropies and reference of padded rows; one is empty."""
    generator = torch.Generator().manual_seed(seed)
    shape = (ROWS, TOKENS)
    length_B = torch.randint(1, TOKENS + 1, (ROWS,), generator=generator)
    length_B[3] = 0
    mask_BT = torch.arange(TOKENS) < length_B[:, None]
    draw = lambda: torch.rand(shape, generator=generator, dtype=torch.float64) * mask_BT  # noqa: E731
    old_BT = -3 * draw()
    advantages_B = torch.randn(ROWS, 1, generator=generator, dtype=torch.float64)
    return length_B, {
        "old_log_prob": old_BT,
        "log_prob": old_BT + (draw() - 0.5) * mask_BT,
        "advantages": advantages_B.expand(shape) * mask_BT,
        "entropy": 2 * draw(),
        "ref_log_prob": old_BT - draw(),
        "response_mask": mask_BT,
    }


def actor_of(rule: TokenRule, **info):
    actor = actor_config("sent", PRESETS[rule.preset].loss_agg_mode, token_rule=rule)
    actor.global_batch_info.update(info)
    return actor


def step_with(length_B, data, order):
    """The batch as the trainer has it, its rows in this order."""
    lengths = length_B[order]
    names = {"old_log_probs": "old_log_prob"}
    fields = {
        name: nested(data[names.get(name, name)][order], lengths)
        for name in ("old_log_probs", "entropy", "advantages", "response_mask", "ref_log_prob")
    }
    config = {
        "actor": {"ppo_mini_batch_size": 2, "shuffle": False, "data_loader_seed": 0},
        "rollout": {"n": 4},
    }
    return fields, step_of(
        [f"p{row}" for row in order.tolist()],
        config=OmegaConf.create({"actor_rollout_ref": config}),
    )


def prepared(rule, length_B, data, order=None):
    """What the trainer's part tells the loss, and the fields with what it has written."""
    fields, step = step_with(length_B, data, torch.arange(ROWS) if order is None else order)
    with queue_of(fields):
        TokenRulePart(rule).before_update(step)
    return step.batch.extra_info.get(EXTRA_INFO, {}), fields, step.metrics


def loss_of(rule, length_B, data, told, class_BT=None, rows=None, **info):
    """The loss of some rows as one micro-batch, its gradient, and the sums that it leaves."""
    rows = torch.arange(ROWS) if rows is None else torch.as_tensor(rows)
    lengths = length_B[rows]
    fields = {name: nested(data[name][rows], lengths) for name in ("entropy", "ref_log_prob")}
    if class_BT is not None:
        fields[register.CLASS_FIELD] = nested(class_BT[rows], lengths)
    width = max(1, int(lengths.max()))
    leaf = data["log_prob"][rows, :width].clone().requires_grad_()
    names = ("old_log_prob", "advantages", "response_mask")
    actor = actor_of(rule, **info)
    with actor_loss.as_current(MicroBatch(told, fields)) as micro_batch:
        loss, _ = get_policy_loss_fn("sent")(
            **{name: data[name][rows, :width] for name in names},
            log_prob=leaf,
            loss_agg_mode=actor.loss_agg_mode,
            config=actor,
        )
    loss.backward()
    gradient = torch.nn.functional.pad(leaf.grad, (0, TOKENS - width))
    return loss.detach(), gradient, micro_batch.sums


def paper(**rule) -> TokenRule:
    return TokenRule("paper", **{"low_threshold": 1.2, "high_cov_threshold": 0.1, **rule})


def by_hand(length_B, data, rule):
    """The method section's objective in plain Python, token by token, clipped at 1 +- 0.2."""
    pairs = [(i, t) for i in range(ROWS) for t in range(int(length_B[i]))]
    mean = lambda x: sum(float(x[pair]) for pair in pairs) / len(pairs)  # noqa: E731
    mean_log_prob, mean_advantage = mean(data["old_log_prob"]), mean(data["advantages"])
    total, shares = 0.0, dict.fromkeys(token_rule.CLASSES, 0)
    for i in range(ROWS):
        row = 0.0
        for t in range(int(length_B[i])):
            old, new, ref, A, H = (
                float(data[name][i, t])
                for name in ("old_log_prob", "log_prob", "ref_log_prob", "advantages", "entropy")
            )
            ratio = math.exp(new - old)
            surrogate = min(ratio * A, min(max(ratio, 0.8), 1.2) * A)
            if A < 0:
                surrogate = max(surrogate, 3 * A)  # verl's dual clip
            covariance = (old - mean_log_prob) * (A - mean_advantage)
            name = "unselected"
            if rule.low_threshold > H:
                name = "high_cov" if covariance > rule.high_cov_threshold else "rest"
            beta = dict(zip(token_rule.CLASSES, BETA, strict=True))[name]
            shares[name] += 1
            kl = math.exp(ref - new) - (ref - new) - 1
            row += surrogate - beta * kl
        if length_B[i]:
            total += row / int(length_B[i])
    rows = int((length_B > 0).sum())
    return -total / rows, {name: n / len(pairs) for name, n in shares.items()}


@pytest.mark.parametrize("seed", range(5))
def test_the_papers_objective_in_closed_form(seed):
    """A mean over a response's tokens, then over responses; an empty row is none."""
    rule = paper()
    length_B, data = tokens_of(seed)
    told, _, metrics = prepared(rule, length_B, data)
    assert list(told) == [register.MEANS] and not metrics
    loss, _, sums = loss_of(rule, length_B, data, told)
    expected, shares = by_hand(length_B, data, rule)
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    count = int(length_B.sum())
    for name in rule.classes:
        assert sums[f"actor/sent/{name}/tokens"] == pytest.approx(shares[name] * count)
    assert min(shares[name] for name in rule.classes) > 0  # every class is there
    logged = register.class_metrics({k: float(x) / count for k, x in sums.items()}, rule)
    assert logged["sent/constrained_share"] == pytest.approx(shares["rest"] + shares["high_cov"])
    assert logged["sent/rest/entropy"] < 1.2 <= logged["sent/unselected/entropy"]
    assert logged["sent/high_cov/covariance"] > 0.1 >= logged["sent/rest/covariance"]


@pytest.mark.parametrize("cov_mean_over", ["all", "selected"])
def test_the_loss_is_the_fraction_rules_at_the_datas_quantiles(cov_mean_over):
    """Where both are over the batch with the same means: one and the same loss and gradient."""
    length_B, data = tokens_of(6)
    mask_BT = data["response_mask"]
    share = {"low_fraction": 0.8, "high_cov_fraction": 0.1}
    by_fraction = TokenRule("paper", **share, cov_mean_over=cov_mean_over)
    _, fields, metrics = prepared(by_fraction, length_B, data)
    class_BT = fields[register.CLASS_FIELD].to_padded_tensor(0)[:, :TOKENS]
    values = (data[name][mask_BT] for name in ("entropy", "old_log_prob", "advantages"))
    chosen = thresholds_of(*values, low=0.8, high_cov=0.1, cov_mean_over=cov_mean_over)
    by_threshold = TokenRule("paper", **chosen._asdict(), cov_mean_over=cov_mean_over)
    told, _, _ = prepared(by_threshold, length_B, data)
    expected = loss_of(by_fraction, length_B, data, {}, class_BT)
    found = loss_of(by_threshold, length_B, data, told)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    count = int(mask_BT.sum())
    for name in ("unselected", "rest", "high_cov"):
        tokens = found[2][f"actor/sent/{name}/tokens"]
        assert tokens == expected[2][f"actor/sent/{name}/tokens"]
        for value in ("entropy", "covariance"):  # one is logged by the driver, one by the loss
            mean = float(found[2][f"actor/sent/{name}/{value}"] / tokens)
            assert mean == pytest.approx(metrics[f"sent/{name}/{value}"], rel=1e-5, abs=1e-6)
    low = int(0.8 * count)
    assert found[2]["actor/sent/high_cov/tokens"] == int(0.1 * low) > 1


def test_the_gradient_is_that_of_finite_differences():
    """In float64; the classes are of the old policy and do not move with the new one."""
    rule = paper()
    length_B, data = tokens_of(1)
    told, _, _ = prepared(rule, length_B, data)
    _, gradient, _ = loss_of(rule, length_B, data, told)
    assert gradient.dtype == torch.float64
    step = 1e-5
    checked = 0
    for i, t in data["response_mask"].nonzero().tolist():
        ends = []
        for sign in (1, -1):
            moved = data["log_prob"].clone()
            moved[i, t] += sign * step
            ends.append(loss_of(rule, length_B, data | {"log_prob": moved}, told)[0])
        slope = float(ends[0] - ends[1]) / (2 * step)
        assert gradient[i, t].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
        checked += 1
    assert checked == length_B.sum()
    assert not gradient[~data["response_mask"]].any()


@pytest.mark.parametrize("split", [[[16]], [[4, 4], [8]], [[1] * 16], [[3, 5], [2, 2, 4]]])
def test_micro_batches_and_ranks_change_nothing(split):
    """The means come from the whole batch, whatever the order of its rows: the gradients of the
    parts, averaged over ranks as FSDP does, are those of the whole."""
    rule = paper()
    length_B, data = tokens_of(2)
    told, _, _ = prepared(rule, length_B, data)
    tokens = int(length_B.sum())
    info = {"batch_num_tokens": tokens, "global_batch_size": ROWS}
    _, expected, whole = loss_of(rule, length_B, data, told, dp_size=1, **info)
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(1))
    moved_told, _, _ = prepared(rule, length_B, data, order)
    assert moved_told[register.MEANS] == pytest.approx(told[register.MEANS], rel=1e-14)
    gradient, sums, rows = torch.zeros_like(expected), {}, order.tolist()
    for of_rank in split:
        for size in of_rank:
            index, rows = rows[:size], rows[size:]
            _, part, left = loss_of(
                rule, length_B, data, moved_told, rows=index, dp_size=len(split), **info
            )
            gradient[index] += part / len(split)
            for name, value in left.items():
                sums[name] = sums.get(name, 0) + value
    assert not rows
    torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-12)
    for name, value in whole.items():
        torch.testing.assert_close(sums[name], value, check_dtype=False)


def test_padding_rows_and_masked_tokens_are_in_no_mean():
    rule = paper()
    length_B, data = tokens_of(3)
    data["response_mask"] = data["response_mask"] & (torch.arange(TOKENS) != 1)  # a hole
    mask_BT = data["response_mask"]
    told, _, _ = prepared(rule, length_B, data)
    names = ("old_log_prob", "advantages")
    assert told[register.MEANS] == pytest.approx(
        [data[name][mask_BT].mean().item() for name in names]
    )
    wild = {name: torch.where(mask_BT, data[name], 1e3) for name in (*names, "entropy")}
    assert prepared(rule, length_B, data | wild)[0] == told
    assert prepared(rule, length_B * 0 + 1, data | {"response_mask": mask_BT & False})[0] == {
        register.MEANS: [0.0, 0.0]
    }


def test_without_the_means_the_loss_says_what_to_do():
    length_B, data = tokens_of(0)
    with pytest.raises(ValueError, match=r"scope=batch .*trainer_mode=recipe_sync"):
        loss_of(paper(), length_B, data, {})


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({}, True),
        ({"low_fraction": 1.0, "low_threshold": None}, True),  # all tokens: nothing to rank
        ({"high_cov_fraction": 0.0, "high_cov_threshold": None}, True),
        ({"low_cov_fraction": 0.1}, False),
        ({"low_fraction": 0.8, "low_threshold": None}, False),
        ({"scope": "mini_batch"}, False),  # its means are those of each mini-batch
        ({"scope": "micro_batch"}, False),
    ],
)
def test_what_ranks_tokens_is_chosen_on_the_driver(rule, expected):
    rule = paper(**rule)
    assert rule.by_thresholds == expected
    told, fields, _ = prepared(rule, *tokens_of(4))
    assert (register.MEANS in told) == expected
    assert (register.CLASS_FIELD in fields) == (not expected and rule.scope != "micro_batch")


def test_a_threshold_takes_the_place_of_the_presets_fraction():
    rule = TokenRule("as_described", low_threshold=0.3)
    assert (rule.low_fraction, rule.low_threshold) == (None, 0.3)
    assert (rule.high_cov_fraction, rule.high_cov_threshold) == (2e-4, None)
    rule = TokenRule("paper", low_fraction=0.8, high_cov_threshold=1.0)
    assert (rule.low_fraction, rule.low_threshold) == (0.8, None)


def test_the_numbers_of_the_figure_and_of_the_released_code_are_what_they_were():
    for preset, expected in {
        "as_described": (0.8, "mini_batch", 2e-4, 0.0, (0.0, 0.05, 0.2, 0.0), "ref", "k3", True),
        "as_released": (0.8, "micro_batch", 2e-4, 2e-4, (0, 0.0, 0.2, 0.05), "old", "abs", False),
    }.items():
        rule = TokenRule(preset)
        assert (
            rule.low_fraction,
            rule.scope,
            rule.high_cov_fraction,
            rule.low_cov_fraction,
            rule.coefficients,
            rule.anchor,
            rule.estimator,
            rule.clip,
        ) == expected
        assert (rule.low_threshold, rule.high_cov_threshold) == (None, None)
        assert rule.cov_mean_over == "selected" and not rule.by_thresholds
        assert PRESETS[preset].loss_agg_mode == "token-mean"
