"""Whether a comparison would be a fair one: one sentence before anything starts."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from omegaconf import OmegaConf

from recipe.compare.plan import (
    Plan,
    PlannedRun,
    evaluation_arguments,
    evaluation_replicas,
    evaluations_of,
)
from recipe.core.recipe import recipes
from recipe.experiment.provenance import (
    CONTENT,
    config_identity,
    differences,
    is_below,
)
from recipe.launch.check_resume import forget_unused_settings

# What makes a method, beside the recipes' own settings and presets (`method_keys`)
METHOD_KEYS = (
    "algorithm.adv_estimator",
    "algorithm.gamma",
    "algorithm.lam",
    "algorithm.norm_adv_by_std_in_grpo",
    "actor_rollout_ref.actor.policy_loss",
    "actor_rollout_ref.actor.clip_ratio",
    "actor_rollout_ref.actor.clip_ratio_low",
    "actor_rollout_ref.actor.clip_ratio_high",
    "actor_rollout_ref.actor.clip_ratio_c",
    "actor_rollout_ref.actor.loss_agg_mode",
    "actor_rollout_ref.actor.entropy_coeff",
    "actor_rollout_ref.actor.calculate_entropy",
    "actor_rollout_ref.actor.use_kl_loss",
    "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.kl_loss_type",
)
PROMPT_LENGTHS = tuple(f"prompt_length/{name}" for name in ("mean", "min", "max"))


def check_plan(plan: Plan) -> None:
    """Checks every arm's config, folder and evaluation, and that the comparison is fair.

    Raises:
        ValueError, AssertionError, RuntimeError, OSError: in one sentence, what to correct.
        SystemExit: a setting of `evaluate` is no flag of recipe.evaluate.
    """
    from recipe.launch import preflight

    first_of_arm = {run.arm.name: run for run in reversed(plan.runs)}
    for run in plan.runs:
        if run is first_of_arm[run.arm.name]:
            preflight.check(OmegaConf.create(run.record["config"]))
    for run in {run.name: run for run in (*plan.baselines, *plan.runs)}.values():
        check_folder(run)
    check_fair([*plan.baselines, *plan.runs], plan.matrix.baseline)
    check_seeds(plan.runs)
    if plan.matrix.evaluate and plan.runs:
        from recipe.evaluate import __main__ as evaluate
        from recipe.judge.reward_function import NODE, RewardFunction, is_judge
        from recipe.sampling import prompts
        from recipe.sampling.run_settings import value_at

        for settings in evaluations_of(plan.matrix.evaluate):
            # ends the program where a flag is not allowed
            args = evaluate.parse(evaluation_arguments(plan.runs[0], settings))
        node = value_at(plan.runs[0].record["config"], NODE) or {}
        given = plan.matrix.evaluate.get("reward")
        reward = RewardFunction.parse(given) if given else RewardFunction.of_run(node)
        judged = reward is None or is_judge(reward.path, reward.name)
        for file in args.benchmarks:
            prompts.read_prompts([file], 0, "evaluate: ", judged)
        for run in plan.runs:
            evaluation_replicas(run, plan.matrix.evaluate)


def check_seeds(runs: Iterable[PlannedRun]) -> None:
    """Raises ValueError where two seeds of an arm would be the same run: where their configs are
    equal, or where data that is shuffled comes in the same order. The seeds of the sampling alone
    make no other run, because verl does not repeat a run anyway."""
    seen: dict[str, list[PlannedRun]] = {}
    for run in runs:
        earlier = seen.setdefault(run.arm.name, [])
        for other in earlier:
            seeds = f"seeds {other.seed} and {run.seed} of arm {run.arm.name}"
            if not differences(config_identity(other.record), config_identity(run.record)):
                raise ValueError(
                    f"{seeds} are the same run, since no setting of their configs differs: let the "
                    f"script {run.arm.script} hand SEED on, or give one seed."
                )
            order = shuffle_seed(run.record["config"])
            if order and order == shuffle_seed(other.record["config"]):
                key, value = order
                raise ValueError(
                    f"{seeds} train on the same order of prompts, {key}="
                    f"{'null' if value is None else value}: leave {key} to the script's SEED, or "
                    "switch the shuffling off if all seeds are to have one order."
                )
        earlier.append(run)


def shuffle_seed(config: Mapping[str, Any]) -> tuple[str, Any] | None:
    """Returns the config key that decides the order of the prompts, and its value; None where
    nothing shuffles them. data.seed=null is one order, verl's fixed one."""
    data = config["data"]
    curriculum = data.get("curriculum") or {}
    if curriculum.get("order", "none") != "none":
        shuffled = curriculum.get("shuffle", True) or curriculum["order"] == "shuffled"
        return ("data.curriculum.seed", curriculum.get("seed")) if shuffled else None
    return ("data.seed", data.get("seed")) if data.get("shuffle", True) else None


def equal_arms(runs: Iterable[PlannedRun]) -> list[list[str]]:
    """Returns the groups of arms whose configs are equal at every seed: reruns of one method."""
    identities: dict[str, dict[int, dict[str, Any]]] = {}
    for run in runs:
        identities.setdefault(run.arm.name, {})[run.seed] = config_identity(run.record)
    groups: list[list[str]] = []
    for name, identity in identities.items():
        home = next((group for group in groups if identities[group[0]] == identity), None)
        groups.append([name]) if home is None else home.append(name)
    return [group for group in groups if len(group) > 1]


DATA = ("data", "algorithm.filter_groups")  # what decides which prompts are trained


@functools.cache
def method_keys() -> tuple[str, ...]:
    """Returns the config keys in which arms differ by design: METHOD_KEYS, the recipes' own
    settings, and what their yamls take from a preset. In everything else that decides a run's
    results the arms of a seed must agree, and files are compared by content. What a recipe does to
    the data is not among them: an arm names it."""
    keys = list(METHOD_KEYS)
    for recipe in recipes():
        keys += [*recipe.settings_classes(), *recipe.taken_from_preset()]
    return tuple(key for key in dict.fromkeys(keys) if not is_below(key, DATA))


def check_fair(runs: Iterable[PlannedRun], baseline: str) -> None:
    """Raises ValueError unless the runs of each seed agree with the baseline's in everything but
    `method_keys` and what either arm lists in `may_differ`."""
    runs = list(runs)
    for seed in dict.fromkeys(run.seed for run in runs):
        of_seed = [run for run in runs if run.seed == seed]
        first = next((run for run in of_seed if run.arm.name == baseline), of_seed[0])
        expected = config_identity(first.record)
        for run in of_seed:
            actual = config_identity(run.record)
            allowed = (*method_keys(), *first.arm.may_differ, *run.arm.may_differ)
            for key in differences(expected, actual):
                if not is_below(key.removeprefix(CONTENT), allowed):
                    raise ValueError(
                        f"arms {first.arm.name} and {run.arm.name} differ in {key} "
                        f"({expected.get(key)} and {actual.get(key)}), so that their difference "
                        f"would not be the method's: make them equal, or add {key} to the arm's "
                        "`may_differ`."
                    )


def check_folder(run: PlannedRun) -> None:
    """Raises ValueError if the folder holds a run of another config."""
    folder, last = run.folder, run.folder.last_record()
    if last is None and not folder.steps_done():
        return
    if not last or "config" not in last:
        raise ValueError(
            f"{folder.path} holds a run without a record of its config: give another --out."
        )
    old, new = config_identity(last), config_identity(run.record)
    forget_unused_settings(old, new)
    if keys := differences(old, new):
        key = keys[0]
        more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
        raise ValueError(
            f"{folder.path} holds a run of another config ({key}: {old.get(key)} there, "
            f"{new.get(key)} now{more}): remove it, or give another --out."
        )


def chooses_prompts(config: Mapping[str, Any]) -> bool:
    """Says whether a run's pass rates decide which prompts it trains on, so that two runs differ in
    them by design."""
    # a curriculum's order is known before its run; any other recipe's follows the run's own answers
    nodes = [x for key, x in config["data"].items() if key != "curriculum"]
    ordered = any(isinstance(x, Mapping) and x.get("order", "none") != "none" for x in nodes)
    filters = (config["algorithm"].get("filter_groups") or {}).get("enable", False)
    return bool(ordered or filters)


def differing_prompts(runs: Iterable[PlannedRun]) -> list[str]:
    """Returns a sentence on each finished run that should have trained on the same prompts as
    another and did not, by the lengths of the prompts at each step. Runs whose prompts depend on
    their own pass rates are left out."""
    first: dict[tuple, tuple[PlannedRun, dict]] = {}
    sentences = []
    for run in runs:
        if chooses_prompts(run.config):
            continue
        data = {k: v for k, v in config_identity(run.record).items() if k.startswith("data.")}
        key = (run.seed, repr(sorted(data.items(), key=str)))
        lengths = {
            step: tuple(row.get(name) for name in PROMPT_LENGTHS)
            for step, row in run.folder.metrics().items()
            # of a step whose start was killed before its row there is a validation at most
            if step > 0 and not row.keys().isdisjoint(PROMPT_LENGTHS)
        }
        other, expected = first.setdefault(key, (run, lengths))
        common = sorted(set(lengths) & set(expected))
        if step := next((step for step in common if lengths[step] != expected[step]), None):
            sentences.append(
                f"{run.name} and {other.name} did not train on the same prompts at step {step}"
            )
    return sentences
