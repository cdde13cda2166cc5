"""Which of the four regions of tokens moved the entropy of a run (arXiv 2602.09782, sec. 3)."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

from recipe.core.policy_loss import NODE
from recipe.experiment.evidence import BYPASS, Evidence, Finding, percent

PAPER = "arXiv 2602.09782, sec. 3"
LOSS_MODE = "dynamic_clip"  # as in `config`, which needs torch
REGIONS = {  # (tokens, does to the entropy, what limits it)
    "E1": ("likely tokens with positive advantage", "lower", "The upper bound"),
    "E2": ("unlikely tokens with positive advantage", "raise", "The upper bound"),
    "E3": ("likely tokens with negative advantage", "raise", "The lower bound or the dual clip"),
    "E4": ("unlikely tokens with negative advantage", "lower", "The lower bound or the dual clip"),
}


def findings(run: Evidence) -> Iterator[Finding]:
    """Says which kind of token the updates moved the entropy by, and what was clipped of it."""
    points = {name: run.points(f"clip_entropy/{name}/entropy_change") for name in REGIONS}
    changes = {name: fmean(values.values()) for name, values in points.items() if values}
    source = f"clip_entropy/*/entropy_change; {PAPER}"
    if not changes:
        settings: dict[str, Any] = {f"{NODE}.region_diagnostics": True, BYPASS: False}
        # a loss that takes a schedule's bounds, whichever it is, has logged the schedule's metrics
        if not any(name.startswith("clip_entropy/") for row in run.steps.values() for name in row):
            settings = {f"{NODE}.loss_mode": LOSS_MODE} | settings
        text = f"Which kind of token moved the entropy was not logged{run.to_log(settings)}"
        if LOSS_MODE in text:
            text += " Preset grpo of clip_entropy is plain GRPO."
        yield Finding("regions", text, source)
        return
    total = sum(changes.values())
    listed = ", ".join(f"{region} {change:+.2g}" for region, change in changes.items())
    listed += f" nats per token{run.span(set().union(*points.values()))} in logit space"
    if total == 0:
        yield Finding(
            "regions",
            f"By first-order prediction a step's updates left the entropy where it was ({listed}).",
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
        f"entropy ({listed}); the most came from {name}, {tokens}"
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
