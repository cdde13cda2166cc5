"""SENT, arXiv 2512.04359: a curriculum by semantic entropy, and KL on low-entropy tokens."""

from recipe.core.recipe import Recipe

RECIPE = Recipe(
    name="semantic_curriculum",
    package=__name__,
    paper="arXiv 2512.04359",
    register=".register",
    losses=("sent",),
    settings={"data.curriculum": ".config:CurriculumConfig"},
    policy_loss=".config:TokenRuleSettings",
    presets=".config:PRESETS",
    preset_key="actor_rollout_ref.actor.policy_loss.token_rule.preset",
    parts=(".part:TokenRulePart", ".part:CurriculumPart"),
    checks=".checks:check",
    summary=".checks:summary",
    # configs of the released evaluation; the number of samples is ours
    evaluation={
        "sent": {
            "temperature": 1.0,
            "top_p": 0.9,
            "top_k": 50,
            "samples": 8,
            "max_response_length": 8000,
        }
    },
)
