"""AsymGRPO, arXiv 2604.04894: separate exponents for correct and incorrect rollouts."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="asymgrpo",
    package=__name__,
    paper="arXiv 2604.04894",
    register=".register",
    estimators=("asymgrpo",),
    settings={"algorithm.asymgrpo": ".config:AsymGRPOConfig"},
    presets=".config:PRESETS",
    preset_key="algorithm.asymgrpo.preset",
    parts=(".part:AsymGRPOPart",),
    checks=".checks:check",
    summary=".checks:summary",
    # sec. 4: 5 samples on MATH-500 and OlympiadBench, 10 on AIME and AMC
    evaluation={"asymgrpo": {"temperature": 0.4, "top_p": 1.0, "samples": 10}},
)
