"""A calm run, and what `recipe.diagnose` says of it where some of its metrics are others."""

from recipe.diagnose.findings import diagnose
from recipe.experiment.evidence import Evidence

CONFIG = {
    "data": {"max_response_length": 64, "train_batch_size": 32},
    "actor_rollout_ref": {"actor": {"ppo_mini_batch_size": 8, "ppo_epochs": 1}},
}
CALM = {
    "actor/entropy": 0.5,
    "actor/pg_clipfrac": 0.05,
    "actor/ppo_kl": 0.001,
    "diagnostics/groups/all_correct": 0.1,
    "diagnostics/groups/all_incorrect": 0.2,
    "diagnostics/advantage/positive_mass": 0.4,
    "diagnostics/advantage/negative_mass": -0.4,
    "diagnostics/covariance/all": 0.05,
    "response_length/clip_ratio": 0.01,
    "response_length/max": 60,
    "response_length/mean": 30,
    "training/rollout_probs_diff_mean": 0.001,
}


def findings(steps: int = 20, config=CONFIG, without: tuple[str, ...] = (), **changes):
    """Diagnoses a calm run of which some metrics go evenly from one value to another."""
    changes = {name.replace("__", "/"): ends for name, ends in changes.items()}
    rows = {}
    for step in range(1, steps + 1):
        at = (step - 1) / (steps - 1)
        moved = {name: first + at * (last - first) for name, (first, last) in changes.items()}
        rows[step] = {k: v for k, v in {**CALM, **moved}.items() if k not in without}
    result: dict[str, list[str]] = {}
    for topic, text, _ in diagnose(Evidence(rows, config)):
        result.setdefault(topic, []).append(text)
    return result


def sentences(topic, rows, config=CONFIG):
    """Returns the sentences of one topic on a calm run with these metrics at its steps.

    Args:
        rows: {step: {metric: value}}; a value of None: not logged.
    """
    steps = {step: CALM | row for step, row in rows.items()}
    return [text for name, text, _ in diagnose(Evidence(steps, config)) if name == topic]


def with_settings(**settings):
    """Returns the config with settings of the policy loss."""
    actor = CONFIG["actor_rollout_ref"]["actor"] | {"policy_loss": settings}
    return CONFIG | {"actor_rollout_ref": {"actor": actor}}
