"""What the sampling of prompts did in a run."""

from __future__ import annotations

from collections.abc import Iterator

from recipe.experiment.evidence import Evidence, Finding, percent
from recipe.prompt_sampling.config import NAME, NODE

DROPPED = "training/filter_groups/evicted_samples"
SURPLUS = "training/filter_groups/discarded_surplus_samples"


def findings(run: Evidence) -> Iterator[Finding]:
    """Says which share of the generated groups dynamic sampling dropped or threw away, or how far
    an order by pass rates is from a shuffle."""
    if run.setting("algorithm.filter_groups.enable"):
        batch = run.setting("data.train_batch_size")
        steps = sum(step > 0 for step in run.steps)
        if batch is None or not steps:
            return
        # verl logs a count only where it is not 0
        dropped, surplus = (sum(run.values(name)) for name in (DROPPED, SURPLUS))
        generated = steps * batch + dropped + surplus
        text = (
            f"Dynamic sampling dropped {percent(dropped / generated)} of the generated groups, as "
            f"their rollouts were all correct or all incorrect, and {percent(surplus / generated)} "
            "as more than a batch"
        )
        if dropped == 0:
            text += ": the run is one without it"
        yield Finding("prompts", f"{text}.", f"{DROPPED}, {SURPLUS}; arXiv 2503.14476")
    order, ends = run.setting(f"{NODE}.order"), run.ends(f"{NAME}/chance")
    if order in (None, "none") or ends is None:
        return
    yield Finding(
        "prompts",
        f"The order by {order} took a prompt with a mean chance of {percent(ends[0])} at the "
        f"beginning and {percent(ends[1])} at the end"
        + (": nearly a shuffle." if min(ends) > 0.9 else "."),
        f"{NAME}/chance",
    )
