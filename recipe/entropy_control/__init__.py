"""Controllers of the policy's entropy: what holds it at a target, or on a curve, by the coefficient
of an entropy bonus or by the advantages."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="entropy_control",
    package=__name__,
    paper="arXiv 2505.22312 (Skywork-OR1), 2604.26326 (Entrocraft), 2511.15248 (EntroPIC)",
    settings={"algorithm.entropy_control": ".config:EntropyControlSettings"},
    presets=".config:PRESETS",
    preset_key="algorithm.entropy_control.preset",
    parts=(".part:EntropyControlPart",),
    checks=".checks:check",
    summary=".checks:summary",
    findings=".diagnosis:findings",
    panels=(
        ("coefficient of the entropy", "entropy_control/coefficient", "coefficient"),
        ("weight alpha of EntroPIC", "entropy_control/alpha", "alpha"),
    ),
)
