"""Which prompts a step trains on: DAPO's dynamic sampling, and an order that follows each prompt's
latest pass rate."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="prompt_sampling",
    package=__name__,
    paper="arXiv 2503.14476 (DAPO), 2501.12599 (Kimi k1.5), 2601.02648 (prioritized replay)",
    settings={"data.prompt_sampling": ".config:PromptSamplingSettings"},
    presets=".config:PRESETS",
    preset_key="data.prompt_sampling.preset",
    parts=(".part:PromptSamplingPart",),
    checks=".checks:check",
    summary=".checks:summary",
    findings=".diagnosis:findings",
    panels=(
        ("mean chance of a prompt", "prompt_sampling/chance", "chance"),
        ("groups dropped by dynamic sampling", "training/filter_groups/evicted_samples", "groups"),
    ),
)
