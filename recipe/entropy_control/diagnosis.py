"""What a controller did to the entropy of a run, or how often one would have acted."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean

from recipe.entropy_control.config import NAME, NODE, EntropyControlSettings
from recipe.experiment.evidence import Evidence, Finding, percent


def findings(run: Evidence) -> Iterator[Finding]:
    """Says on how many steps the run's controller acted; without one, on how many Skywork-OR1's
    would have."""
    controller = run.setting(f"{NODE}.controller")
    changed, coefficient = (
        run.values(f"{NAME}/{name}") for name in ("changed_share", "coefficient")
    )
    if controller in (None, "none"):
        target = EntropyControlSettings.target
        entropies, source = run.entropies()
        below = sum(entropy < target for entropy in entropies.values())
        if below:
            yield Finding(
                "control",
                f"The entropy{run.span(entropies)} was below {target} nats on "
                f"{percent(below / len(entropies))} of the steps: on these Skywork-OR1's bonus "
                f"(preset target of {NAME}) would have acted, up to where it had raised it.",
                f"{source}; arXiv 2505.22312",
            )
        return
    acted = changed or coefficient
    if not acted:
        return
    name = f"{NAME}/{'changed_share' if changed else 'coefficient'}"
    share = sum(value > 0 for value in acted) / len(acted)
    text = f"The controller {controller} acted on {percent(share)} of the steps"
    if share == 0:
        text += ": the run is one without it (move its target or lines to where the entropy is)"
    elif changed:
        text += f" and changed {percent(fmean(changed))} of the advantages"
    else:
        text += f", with a mean coefficient of {fmean(coefficient):.2g}"
    yield Finding("control", f"{text}.", name)
