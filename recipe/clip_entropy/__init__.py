"""Flexible entropy control, arXiv 2602.09782: clip bounds by token probability, moved over
training."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="clip_entropy",
    package=__name__,
    paper="arXiv 2602.09782",
    register=".register",
    losses=("dynamic_clip",),
    policy_loss=".config:ClipSettings",
    presets=".config:PRESETS",
    preset_key="actor_rollout_ref.actor.policy_loss.preset",
    parts=(".part:ClipSchedulePart",),
    checks=".checks:check",
    summary=".checks:summary",
    panels=(
        ("mean upper clip bound", "clip_entropy/bound_upper", "eps"),
        ("mean lower clip bound", "clip_entropy/bound_lower", "eps"),
    ),
    findings=".diagnosis:findings",
    # its evaluation framework; the number of samples is ours
    evaluation={"clip_entropy": {"temperature": 0.7, "top_p": 0.8, "top_k": 20, "samples": 8}},
)
