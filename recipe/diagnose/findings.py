"""What moved the entropy of a run, read from its metrics: sentences, each with its figures and its
source.

Every finding is a function of what the run has logged; where the metrics cannot tell, it says which
setting to log. A recipe adds its own (`Recipe.findings`). Limits that say "high" or "low" are ours
and stand in `LIMITS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import fmean

from recipe.core.recipe import POLICY_LOSS, TRAINER, recipes
from recipe.experiment.evidence import BYPASS, Evidence, Finding, Points, ends, percent

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
    "balanced": 1.25,  # mass of one sign of advantages over that of the other, up to
    "one-sided": 10.0,  # the same, from
}
DIAGNOSTICS = f"{TRAINER}.diagnostics"
# losses of PPO's clipped term, under whatever bounds; None: no record
PPO = (None, "vanilla", "dynamic_clip", "bypass_mode")
# what `actor/pg_clipfrac` counts under verl's other losses, where that is not what the bounds clip
CUTS = {"clip_cov": "held back for their covariance", "geo_mean": "outside the bounds"}
ASYM_PAPER = "arXiv 2604.04894, App. B"


def entropy(run: Evidence) -> Iterator[Finding]:
    """Says where the entropy went."""
    entropies, source = run.entropies()
    first_and_last = ends(entropies)
    if first_and_last is None:
        settings = {BYPASS: False} if run.is_token_mean else {DIAGNOSTICS: True, BYPASS: False}
        text = f"The run has logged no entropy per token{run.to_log(settings)}"
        yield Finding("entropy", text, source)
        return
    first, last = first_and_last
    subject = f"The entropy{run.span(entropies)}"
    if last < LIMITS["collapse"] * first:
        verdict = "collapsed"
    elif last > LIMITS["explosion"] * first:
        verdict = "exploded"
    else:
        verdict = "fell" if last < first else "rose"
    change = f" ({percent(last / first - 1, signed=True)})" if first > 0 else ""
    text = f"{subject} {verdict} from {first:.3g} to {last:.3g} nats per token{change}."
    if f"{first:.3g}" == f"{last:.3g}":
        stayed = "stayed at" if len(entropies) > 1 else "was"
        text = f"{subject} {stayed} {first:.3g} nats per token."
    yield Finding("entropy", text, source)


def clipping(run: Evidence) -> Iterator[Finding]:
    """Says which share of the tokens the loss cut, and whether PPO's clip bounds act at all."""
    loss, variant = (run.setting(f"{POLICY_LOSS}.{name}") for name in ("loss_mode", "variant"))
    names = ["actor/pg_clipfrac"]
    if loss == "geo_mean":
        names.append("actor/pg_clipfrac_lower")  # where A < 0; the other one is where A > 0
    shares = [share for share in map(run.mean, names) if share is not None]
    if loss == "sapo" or not shares:  # verl's sapo clips nothing, and logs a constant 0
        return
    share = sum(shares)
    text = f"{percent(share)} of the tokens were {CUTS.get(loss, 'clipped')}"
    if loss in PPO and variant in (None, "ppo"):
        if share < LIMITS["few clipped"]:
            text += ": so few that methods which move the bounds hardly act"
        elif share > LIMITS["much clipped"]:
            text += (
                ", which then have no gradient. CE-GPPO and CISPO leave them one (presets ce_gppo "
                "and cispo of clip_entropy)"
            )
    yield Finding("clipping", f"{text}.", ", ".join(names))


def covariance(run: Evidence) -> Iterator[Finding]:
    """Says which way advantages and log-probs pulled."""
    name = "diagnostics/covariance/all"  # a step without a mixed group has none
    values = run.values(name)
    if not values:
        return
    positive = sum(value > 0 for value in values)
    mean = fmean(values)
    span = run.span(run.points("diagnostics/groups/all_correct") or run.points(name))
    text = (
        f"Log-prob and advantage of a group's rollouts{span} had a covariance of {mean:+.2g} on "
        f"average, positive in {positive} of {len(values)} steps with mixed groups"
    )
    if mean != 0:
        text += f": to first order that {'lowers' if mean > 0 else 'raises'} the entropy"
    text += "."
    if mean > 0:
        text += (
            " KL-Cov, Clip-Cov and SENT's token rule hold back the tokens where it is high "
            "(presets clip_cov of clip_entropy, kl_cov and paper of semantic_curriculum)."
        )
    yield Finding("covariance", text, f"{name}; {ASYM_PAPER}")


def balance(run: Evidence) -> Iterator[Finding]:
    """Says whether correct or incorrect rollouts pushed more."""
    names = [f"diagnostics/advantage/{sign}_mass" for sign in ("positive", "negative")]
    up, down = map(run.mean, names)
    if up is None or down is None:
        return
    larger, smaller = max(up, -down), min(up, -down)
    text = (
        f"Positive advantages{run.span(run.points(names[0]))} added {up:.3g} and negative ones "
        f"{down:.3g} to a token-mean loss"
    )
    if larger == 0:
        text += ": no token had an advantage."
    elif larger <= LIMITS["balanced"] * smaller:
        text += ", about as much."
    else:
        side = "positive" if up > -down else "negative"
        times = f"{larger / smaller:.1f} times as much" if smaller else "alone"
        text += f": the {side} side pushed {times}."
        if larger >= LIMITS["one-sided"] * smaller:
            text += (
                " An estimator with a weight for each sign changes that (asymgrpo, or its presets "
                "psr, nsr and w_reinforce)."
            )
    yield Finding("advantages", text, "diagnostics/advantage/*_mass")


def signal(run: Evidence) -> Iterator[Finding]:
    """Says how many groups taught nothing."""
    names = [f"diagnostics/groups/all_{kind}" for kind in ("correct", "incorrect")]
    parts = [part for part in map(run.ends, names) if part is not None]
    if len(parts) < len(names):
        text = "Whether groups were all correct or all incorrect was not logged"
        if run.values("diagnostics/advantage/positive_mass"):  # the other diagnostics were
            text += (
                ", as the rewards do not say which rollouts are correct: return 1 or 0 from the "
                "reward function, or set algorithm.asymgrpo.correct_threshold or correct_field."
            )
        else:
            text += run.to_log({DIAGNOSTICS: True, BYPASS: False})
        yield Finding("signal", text, "diagnostics/groups/*")
        return
    (_, solved), (_, failed) = parts
    none = solved + failed
    text = (
        f"{percent(solved)} of the groups were all correct and {percent(failed)} all incorrect at "
        f"the end{run.span(run.points(names[0]))}"
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
    shares = run.points(source)
    of_verl = {} if limit is None else truncated_shares(run, limit)
    if len(of_verl) > len(shares):
        shares, source = of_verl, "response_length/clip_ratio, .../max"
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
    span = run.span(shares)
    if not any(shares.values()):
        text = f"No rollout{span} reached the limit of the response's length"
        if limit is not None and longest:
            text = f"No rollout{span} reached the limit of {limit} tokens (the longest had "
            text += f"{max(longest):.0f})"
        yield Finding("truncation", f"{text}.", source)
        return
    first, last = first_and_last
    of_tokens = "" if limit is None else f" of {limit} tokens"
    yield Finding(
        "truncation",
        f"{percent(first)} of the rollouts at the beginning and {percent(last)} at the end{span} "
        f"were as long as the limit{of_tokens}"
        + (
            ": a correct answer that is cut off counts as incorrect, so the reward presses for "
            "short responses; raise data.max_response_length."
            if last > LIMITS["truncated"]
            else "."
        ),
        source,
    )


def truncated_shares(run: Evidence, limit: int) -> Points:
    """Returns the share of rollouts as long as the limit by step, made of verl's share of those as
    long as the longest of the batch."""
    shares, longest = run.points("response_length/clip_ratio"), run.points("response_length/max")
    return {
        step: share if longest[step] >= limit else 0.0
        for step, share in shares.items()
        if step in longest
    }


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
            "How far the engine's probabilities were from the actor's was not logged"
            + run.to_log({"actor_rollout_ref.rollout.calculate_log_probs": True, BYPASS: False}),
            "training/rollout_probs_diff_mean",
        )
        return
    text = (
        f"The engine's and the actor's probability of a token differed by {distance:.2g} on average"
    )
    if distance > LIMITS["engine"]:
        text += ": the rollouts are off-policy before any update, which entropy and ratios show too"
        corrections = ("rollout_is", "rollout_rs")
        if not any(run.setting(f"algorithm.rollout_correction.{name}") for name in corrections):
            text += "; correct it with verl's algorithm.rollout_correction, or find its cause"
    yield Finding("engine", f"{text}.", "training/rollout_probs_diff_mean")


def off_policy(run: Evidence) -> Iterator[Finding]:
    """Says how far a step's mini-batches were from the policy that sampled them."""
    distances = [abs(value) for value in run.values("actor/ppo_kl")]
    prompts = run.setting("data.train_batch_size")
    mini = run.setting("actor_rollout_ref.actor.ppo_mini_batch_size")
    epochs = run.setting("actor_rollout_ref.actor.ppo_epochs") or 1
    updates = prompts // mini * epochs if prompts and mini else None
    bypass = run.setting(BYPASS)  # measured from the engine's policy, else from the actor's
    if not distances or (updates == 1 and not bypass):
        return
    distance = fmean(distances)
    sampler = "the engine's, which had sampled" if bypass else "the one that had sampled"
    text = f"The policy was {distance:.2g} nats per token from {sampler}, on average "
    if updates == 1:
        text += "before a step's update"
    else:
        at_first = "" if bypass else ", so 0 at the first"
        text += f"over a step's {f'{updates} ' if updates else ''}updates (before each{at_first})"
    if distance > LIMITS["off policy"]:
        if updates == 1:
            text += ": no update adds to that, so find what the engine computes differently"
        else:
            text += (
                ": fewer updates (a larger ppo_mini_batch_size) or a smaller learning rate bring "
                f"{'down what the updates add to it' if bypass else 'it down'}"
            )
    yield Finding("off-policy", f"{text}.", "actor/ppo_kl")


FINDINGS: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    entropy, clipping, covariance, balance, signal, truncation, length, engine, off_policy,
)  # fmt: skip


def diagnose(run: Evidence) -> list[Finding]:
    """Returns what the metrics of a run, with a training step at least, tell; the entropy first."""
    of_recipes = [recipe.load(recipe.findings) for recipe in recipes() if recipe.findings]
    first, *others = FINDINGS
    return [finding for rule in (first, *of_recipes, *others) for finding in rule(run)]
