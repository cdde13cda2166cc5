"""What moved the entropy of a run, read from its metrics: sentences, each with its figures and its
source.

Every finding is a function of what the run has logged; where the metrics cannot tell, it says which
setting to log. A recipe adds its own (`Recipe.findings`). Limits that say "high" or "low" are ours
and stand in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from recipe.core.recipe import POLICY_LOSS, recipes
from recipe.experiment.evidence import Evidence, Finding, ends, percent
from recipe.experiment.statistics import finite

LIMITS = {
    "collapse": 0.5,  # the entropy at the end over that at the beginning, below
    "explosion": 1.5,  # the same, above
    "few clipped": 0.01,  # share of tokens, below: the bounds hardly act
    "much clipped": 0.1,  # the same, above
    "no signal": 0.5,  # share of groups whose rollouts are all alike, above
    "truncated": 0.1,  # share of rollouts, above
    "longer": 1.5,  # the length at the end over that at the beginning, above, or 1 / 1.5 below
    "engine": 0.02,  # mean distance of the engine's and the actor's probability of a token, above
    "off policy": 0.01,  # mean distance from the policy that sampled, nats per token, above
    "one-sided": 2.0,  # mass of one sign of advantages over that of the other, above
}
ASYM_PAPER = "arXiv 2604.04894, App. B"


def entropy(run: Evidence) -> Iterator[Finding]:
    """Says where the entropy went."""
    values, source = run.entropies()
    first_and_last = ends(values)
    if first_and_last is None:
        yield Finding(
            "entropy",
            "The run has logged no entropy per token on two steps: "
            "trainer.v1.recipe_sync.diagnostics=true logs it where "
            "algorithm.rollout_correction.bypass_mode=false.",
            source,
        )
        return
    first, last = first_and_last
    if last < LIMITS["collapse"] * first:
        verdict = "collapsed"
    elif last > LIMITS["explosion"] * first:
        verdict = "exploded"
    else:
        verdict = "fell" if last < first else "rose"
    change = f" ({percent(last / first - 1, signed=True)})" if first > 0 else ""
    text = f"The entropy {verdict} from {first:.3g} to {last:.3g} nats per token{change}."
    if f"{first:.3g}" == f"{last:.3g}":
        text = f"The entropy stayed at {first:.3g} nats per token."
    yield Finding("entropy", text, source)


def clipping(run: Evidence) -> Iterator[Finding]:
    """Says whether the clip bounds act at all."""
    share = run.mean("actor/pg_clipfrac")
    if share is None:
        return
    hint = "."
    if share < LIMITS["few clipped"]:
        hint = ": so few that methods which move the bounds hardly act."
    elif share > LIMITS["much clipped"] and is_ppo(run):
        hint = (
            ", which then have no gradient. CE-GPPO and CISPO leave them one (presets ce_gppo and "
            "cispo of clip_entropy)."
        )
    yield Finding(
        "clipping", f"{percent(share)} of the tokens were clipped{hint}", "actor/pg_clipfrac"
    )


def is_ppo(run: Evidence) -> bool:
    """Returns whether the loss is PPO's clipped one, under whatever bounds."""
    loss, variant = (run.setting(f"{POLICY_LOSS}.{name}") for name in ("loss_mode", "variant"))
    return loss in (None, "vanilla", "dynamic_clip") and variant in (None, "ppo")


def covariance(run: Evidence) -> Iterator[Finding]:
    """Says which way advantages and log-probs pulled."""
    values = run.values("diagnostics/covariance/all")
    if not values:
        return
    positive = sum(value > 0 for value in values) / len(values)
    mean = fmean(values)
    way = "lowers" if mean > 0 else "raises"
    text = (
        f"Log-prob and advantage of a group's rollouts had a covariance of {mean:+.2g} on average, "
        f"positive in {percent(positive)} of the steps: to first order that {way} the entropy."
    )
    if mean > 0:
        text += (
            " KL-Cov, Clip-Cov and SENT's token rule hold back the tokens where it is high "
            "(presets clip_cov of clip_entropy, kl_cov and paper of semantic_curriculum)."
        )
    yield Finding("covariance", text, f"diagnostics/covariance/all; {ASYM_PAPER}")


def balance(run: Evidence) -> Iterator[Finding]:
    """Says whether correct or incorrect rollouts pushed more."""
    up, down = (run.mean(f"diagnostics/advantage/{sign}_mass") for sign in ("positive", "negative"))
    if up is None or down is None:
        return
    larger, smaller = max(up, -down), min(up, -down)
    sided = larger > LIMITS["one-sided"] * smaller
    more = "positive" if up > -down else "negative"
    yield Finding(
        "advantages",
        f"Positive advantages added {up:.3g} and negative ones {down:.3g} to a token-mean loss"
        + (
            f": the {more} side pushed alone or nearly so. An estimator with a weight for each "
            "sign changes that (asymgrpo, or its presets psr, nsr and w_reinforce)."
            if sided
            else ", about as much."
        ),
        "diagnostics/advantage/*_mass",
    )


def signal(run: Evidence) -> Iterator[Finding]:
    """Says how many groups taught nothing."""
    parts = [run.ends(f"diagnostics/groups/all_{kind}") for kind in ("correct", "incorrect")]
    if None in parts:
        yield Finding(
            "signal",
            "Whether groups were all correct or all incorrect was not logged: "
            "trainer.v1.recipe_sync.diagnostics=true logs it.",
            "diagnostics/groups/*",
        )
        return
    solved, failed = (part[1] for part in parts if part is not None)
    none = solved + failed
    text = (
        f"At the end {percent(solved)} of the groups were all correct and {percent(failed)} all "
        "incorrect"
    )
    if none > LIMITS["no signal"]:
        cures = (
            "harder prompts (data.curriculum)"
            if solved > failed
            else "easier prompts first (data.curriculum), more rollouts per prompt "
            "(actor_rollout_ref.rollout.n) or, as they need no correct one, presets nsr and "
            "w_reinforce of asymgrpo"
        )
        text += (
            f": {percent(none)} have one reward throughout, which teaches nothing to an estimator "
            f"that compares a group's rollouts. What may help: {cures}; dynamic sampling draws "
            "other groups in their place (preset dynamic_sampling of prompt_sampling)"
        )
    yield Finding("signal", f"{text}.", "diagnostics/groups/*")


def truncation(run: Evidence) -> Iterator[Finding]:
    """Says how many rollouts the response limit cut off."""
    limit, longest = run.setting("data.max_response_length"), run.values("response_length/max")
    source = "diagnostics/length/truncated"
    shares = run.values(source)
    if not shares and limit is not None:
        shares, source = truncated_shares(run, limit), "response_length/clip_ratio, .../max"
    first_and_last = ends(shares)
    if first_and_last is None:
        share = run.ends("response_length/clip_ratio")
        if share is not None and limit is None:
            yield Finding(
                "truncation",
                f"{percent(share[1])} of the last rollouts were as long as the longest; whether "
                "the limit cut them off cannot be told without the run's record.",
                "response_length/clip_ratio",
            )
        return
    if not any(shares):
        text = "No rollout reached the limit of the response's length"
        if limit is not None and longest:
            text = f"No rollout reached the limit of {limit} tokens (the longest had "
            text += f"{max(longest):.0f})"
        yield Finding("truncation", f"{text}.", source)
        return
    first, last = first_and_last
    of_tokens = "" if limit is None else f" of {limit} tokens"
    yield Finding(
        "truncation",
        f"{percent(first)} of the rollouts at the beginning and {percent(last)} at the end were as "
        f"long as the limit{of_tokens}"
        + (
            ": a correct answer that is cut off counts as incorrect, so the reward presses for "
            "short responses; raise data.max_response_length."
            if last > LIMITS["truncated"]
            else "."
        ),
        source,
    )


def truncated_shares(run: Evidence, limit: int) -> list[float]:
    """Returns the share of rollouts as long as the limit, step by step, of a run that has only
    verl's share of those as long as the longest of the batch."""
    names = ("response_length/clip_ratio", "response_length/max")
    rows = [
        [finite(row.get(name)) for name in names] for step, row in run.steps.items() if step > 0
    ]
    return [
        share if longest >= limit else 0.0
        for share, longest in rows
        if share is not None and longest is not None
    ]


def length(run: Evidence) -> Iterator[Finding]:
    """Says how the responses' length moved."""
    ends = run.ends("response_length/mean")
    if ends is None or min(ends) <= 0:
        return
    first, last = ends
    ratio = last / first
    if ratio > LIMITS["longer"] or ratio < 1 / LIMITS["longer"]:
        yield Finding(
            "length",
            f"Responses went from {first:.0f} to {last:.0f} tokens: an entropy per token is then "
            "one of other tokens, so compare it beside the length.",
            "response_length/mean",
        )


def engine(run: Evidence) -> Iterator[Finding]:
    """Says whether the engine sampled from the policy that the actor computes."""
    distance = run.mean("training/rollout_probs_diff_mean")
    if distance is None:
        yield Finding(
            "engine",
            "How far the engine's probabilities were from the actor's was not logged: "
            "actor_rollout_ref.rollout.calculate_log_probs=true logs it.",
            "training/rollout_probs_diff_mean",
        )
        return
    high = distance > LIMITS["engine"]
    yield Finding(
        "engine",
        f"The engine's and the actor's probability of a token differed by {distance:.2g} on average"
        + (
            ": the rollouts are off-policy before any update, which entropy and ratios then show "
            "too; correct it with verl's algorithm.rollout_correction, or find its cause."
            if high
            else "."
        ),
        "training/rollout_probs_diff_mean",
    )


def off_policy(run: Evidence) -> Iterator[Finding]:
    """Says how far a step's mini-batches were from the policy that sampled them."""
    distances = [abs(value) for value in run.values("actor/ppo_kl")]
    prompts = run.setting("data.train_batch_size")
    mini = run.setting("actor_rollout_ref.actor.ppo_mini_batch_size")
    epochs = run.setting("actor_rollout_ref.actor.ppo_epochs") or 1
    updates = prompts // mini * epochs if prompts and mini else None
    if not distances or updates == 1:  # measured before each update, and so 0 at the first
        return
    distance = fmean(distances)
    yield Finding(
        "off-policy",
        f"The policy was {distance:.2g} nats per token from the one that had sampled, on average "
        f"over a step's {f'{updates} ' if updates else ''}updates (before each, so 0 at the first)"
        + (
            ": fewer updates (a larger ppo_mini_batch_size) or a smaller learning rate bring it "
            "down."
            if distance > LIMITS["off policy"]
            else "."
        ),
        "actor/ppo_kl",
    )


FINDINGS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    entropy, clipping, covariance, balance, signal, truncation, length, engine, off_policy,
)  # fmt: skip


def diagnose(run: Evidence) -> list[Finding]:
    """Returns what the run's metrics tell, the entropy first.

    Raises:
        ValueError: No training step is logged.
    """
    if not any(step > 0 for step in run.steps):
        raise ValueError("no training step is logged: run `python -m recipe.diagnose` after one.")
    of_recipes = [recipe.load(recipe.findings) for recipe in recipes() if recipe.findings]
    first, *others = FINDINGS
    return [finding for rule in (first, *of_recipes, *others) for finding in rule(run)]
