"""The smallest recipe that has everything; docs/write_a_recipe.md builds it step by step."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="example",
    package=__name__,
    paper="arXiv 1812.05905, sec. 5 (an entropy target); arXiv 2402.14740 (leave-one-out)",
    register=".register",
    estimators=("leave_one_out",),
    losses=("entropy_target",),
    policy_loss=".settings:EntropyTargetSettings",
    parts=(".part:EntropyTargetPart",),
)
