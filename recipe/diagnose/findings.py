"""What moved the entropy of a run, read from its metrics: sentences, each with its figures and its
source.

Every finding is a function of what the run has logged; where the metrics cannot tell, it says which
setting to log. A recipe adds its own (`Recipe.findings`). Limits that say "high" or "low" are ours
and stand in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from recipe.core.recipe import recipes
from recipe.experiment.evidence import Evidence, Finding, percent

LIMITS = {
    "collapse": 0.5,  # the entropy at the end over that at the beginning, below
    "explosion": 1.5,  # the same, above
    "few clipped": 0.01,  # share of tokens, below: the bounds hardly act
    "no signal": 0.5,  # share of groups whose rollouts are all alike, above
    "truncated": 0.1,  # share of rollouts, above
    "longer": 1.5,  # the length at the end over that at the beginning, above, or 1 / 1.5 below
    "engine": 0.02,  # mean distance of the engine's and the actor's probability of a token, above
    "off policy": 0.01,  # mean KL of a step's updates from the policy that sampled, nats, above
    "one-sided": 2.0,  # mass of one sign of advantages over that of the other, above
}
ASYM_PAPER = "arXiv 2604.04894, App. B"


def entropy(run: Evidence) -> Iterator[Finding]:
    """Says where the entropy went."""
    source = "actor/entropy"
    ends = run.ends(source)
    if ends is None:
        yield Finding(
            "entropy",
            "The run has logged no entropy on two steps: "
            "actor_rollout_ref.actor.calculate_entropy=true logs it.",
            source,
        )
        return
    first, last = ends
    if last < LIMITS["collapse"] * first:
        verdict = "collapsed"
    elif last > LIMITS["explosion"] * first:
        verdict = "exploded"
    else:
        verdict = "fell" if last < first else "rose"
    yield Finding(
        "entropy",
        f"The entropy {verdict} from {first:.3g} to {last:.3g} nats per token "
        f"({percent(last / first - 1, signed=True)}).",
        source,
    )


def clipping(run: Evidence) -> Iterator[Finding]:
    """Says whether the clip bounds act at all."""
    share = run.mean("actor/pg_clipfrac")
    if share is None:
        return
    little = share < LIMITS["few clipped"]
    yield Finding(
        "clipping",
        f"{percent(share)} of the tokens were clipped"
        + (": so few that methods which move the bounds hardly act." if little else "."),
        "actor/pg_clipfrac",
    )


def covariance(run: Evidence) -> Iterator[Finding]:
    """Says which way advantages and log-probs pulled."""
    values = run.values("diagnostics/covariance/all")
    if not values:
        return
    positive = sum(value > 0 for value in values) / len(values)
    mean = fmean(values)
    way = "lowers" if mean > 0 else "raises"
    yield Finding(
        "covariance",
        f"Log-prob and advantage of a group's rollouts had a covariance of {mean:+.2g} on average, "
        f"positive in {percent(positive)} of the steps: to first order that {way} the entropy.",
        f"diagnostics/covariance/all; {ASYM_PAPER}",
    )


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
            f": the {more} side pushed alone or nearly so (an estimator with a weight for each "
            "sign changes that)."
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
        cure = (
            "harder prompts (data.curriculum)"
            if solved > failed
            else "easier prompts first (data.curriculum) or more rollouts per prompt "
            "(actor_rollout_ref.rollout.n)"
        )
        text += f", so that {percent(none)} taught nothing: {cure} would give them a signal"
    yield Finding("signal", f"{text}.", "diagnostics/groups/*")


def truncation(run: Evidence) -> Iterator[Finding]:
    """Says how many rollouts the response limit cut off; verl's share counts those as long as the
    longest of the batch, which is a truncated one only at the limit."""
    limit, longest = run.setting("data.max_response_length"), run.values("response_length/max")
    share = run.ends("response_length/clip_ratio")
    if share is None or not longest:
        return
    if limit is None:
        yield Finding(
            "truncation",
            f"{percent(share[1])} of the last rollouts were as long as the longest; whether the "
            "limit cut them off cannot be told without the run's record.",
            "response_length/clip_ratio",
        )
    elif max(longest) < limit:
        yield Finding(
            "truncation",
            f"No rollout reached the limit of {limit} tokens (the longest had {max(longest):.0f}).",
            "response_length/max",
        )
    else:
        high = share[1] > LIMITS["truncated"]
        yield Finding(
            "truncation",
            f"{percent(share[0])} of the rollouts at the beginning and {percent(share[1])} at the "
            f"end were as long as the limit of {limit} tokens"
            + (
                ": a correct answer that is cut off counts as incorrect, so the reward presses for "
                "short responses; raise data.max_response_length."
                if high
                else "."
            ),
            "response_length/clip_ratio, response_length/max",
        )


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
    """Says how far the updates of a step moved from the policy that sampled."""
    distance = run.mean("actor/ppo_kl")
    if distance is None:
        return
    prompts = run.setting("data.train_batch_size")
    mini = run.setting("actor_rollout_ref.actor.ppo_mini_batch_size")
    epochs = run.setting("actor_rollout_ref.actor.ppo_epochs") or 1
    updates = f" over {prompts // mini * epochs} updates" if prompts and mini else ""
    high = abs(distance) > LIMITS["off policy"]
    yield Finding(
        "off-policy",
        f"A step's updates moved the policy {distance:.2g} nats per token from the one that "
        f"sampled{updates}"
        + (
            ": fewer updates (a larger ppo_mini_batch_size) or a smaller learning rate bring it "
            "down."
            if high
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
