"""Which of the four regions of tokens moved the entropy of a run (arXiv 2602.09782, sec. 3)."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.experiment.evidence import Evidence, Finding, percent

PAPER = "arXiv 2602.09782, sec. 3"
REGIONS = {  # (tokens, does to the entropy, the bound that limits it)
    "E1": ("likely tokens with positive advantage", "lower", "upper"),
    "E2": ("unlikely tokens with positive advantage", "raise", "upper"),
    "E3": ("likely tokens with negative advantage", "raise", "lower"),
    "E4": ("unlikely tokens with negative advantage", "lower", "lower"),
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
    name = max(changes, key=lambda region: abs(changes[region]))
    tokens, effect, bound = REGIONS[name]
    share = run.mean(f"clip_entropy/{name}/token_share")
    clipped = run.mean(f"clip_entropy/{name}/clipped_share")
    listed = ", ".join(f"{region} {change:+.2g}" for region, change in changes.items())
    yield Finding(
        "regions",
        f"By first-order prediction a step's updates {'raised' if total > 0 else 'lowered'} the "
        f"entropy ({listed} nats per token in logit space); the most came from {name}, {tokens}"
        f"{'' if share is None else f', {percent(share)} of the tokens'}.",
        source,
    )
    if clipped is not None:
        result = "more" if effect == "lower" else "less"
        yield Finding(
            "regions",
            f"The {bound} bound clipped {percent(clipped)} of {name}'s tokens: a tighter one would "
            f"leave {result} entropy (schedules id, did and od of clip_entropy move it).",
            f"clip_entropy/{name}/clipped_share; {PAPER}",
        )
