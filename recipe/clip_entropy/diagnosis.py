"""Which of the four regions of tokens moved the entropy of a run (arXiv 2602.09782, sec. 3)."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.core.policy_loss import NODE
from recipe.experiment.evidence import Evidence, Finding, percent

PAPER = "arXiv 2602.09782, sec. 3"
REGIONS = {  # (tokens, does to the entropy, what limits it)
    "E1": ("likely tokens with positive advantage", "lower", "The upper bound"),
    "E2": ("unlikely tokens with positive advantage", "raise", "The upper bound"),
    "E3": ("likely tokens with negative advantage", "raise", "The lower bound or the dual clip"),
    "E4": ("unlikely tokens with negative advantage", "lower", "The lower bound or the dual clip"),
}


def findings(run: Evidence) -> Iterator[Finding]:
    """Says which kind of token the updates moved the entropy by, and what was clipped of it."""
    means = {name: run.mean(f"clip_entropy/{name}/entropy_change") for name in REGIONS}
    changes = {name: change for name, change in means.items() if change is not None}
    source = f"clip_entropy/*/entropy_change; {PAPER}"
    if not changes:
        yield Finding(
            "regions",
            "Which kind of token moved the entropy was not logged: a run with "
            "actor_rollout_ref.actor.policy_loss.loss_mode=dynamic_clip and "
            "region_diagnostics=true logs it (preset grpo of clip_entropy is plain GRPO).",
            source,
        )
        return
    total = sum(changes.values())
    listed = ", ".join(f"{region} {change:+.2g}" for region, change in changes.items())
    if total == 0:
        yield Finding(
            "regions",
            "By first-order prediction a step's updates left the entropy where it was "
            f"({listed} nats per token in logit space).",
            source,
        )
        return
    # of the regions that moved it the way that all together did, the one that did most
    name = max(changes, key=lambda region: changes[region] * total)
    tokens, effect, bound = REGIONS[name]
    share = run.mean(f"clip_entropy/{name}/token_share")
    clipped = run.mean(f"clip_entropy/{name}/clipped_share")
    yield Finding(
        "regions",
        f"By first-order prediction a step's updates {'raised' if total > 0 else 'lowered'} the "
        f"entropy ({listed} nats per token in logit space); the most came from {name}, {tokens}"
        f"{'' if share is None else f', {percent(share)} of the tokens'}.",
        source,
    )
    if clipped is None:
        return
    variant = run.setting(f"{NODE}.variant") or "ppo"
    result = "more" if effect == "lower" else "less"
    text = (
        f"{bound} clipped {percent(clipped)} of {name}'s tokens: a tighter bound would leave "
        f"{result} entropy (schedules id, did and od of clip_entropy move it)."
    )
    if variant != "ppo":
        text = f"With variant={variant} {percent(clipped)} of {name}'s tokens had no gradient."
    yield Finding("regions", text, f"clip_entropy/{name}/clipped_share; {PAPER}")
