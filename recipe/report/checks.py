"""How the configs of a comparison differ, and what a reader has to know before the numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from recipe.experiment import provenance
from recipe.experiment.run import Run
from recipe.experiment.statistics import finite
from recipe.report.results import lacks_its_end


def to_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def settings(record: Mapping[str, Any]) -> dict[str, str]:
    """A start's resolved config, without names and folders of the run; files by content."""
    values = provenance.config_identity(record) if record.get("config") else {}
    return {key: to_text(value) for key, value in values.items() if not key.startswith("package ")}


def differing(named: Mapping[Any, Mapping[str, str]]) -> dict[str, dict[Any, str]]:
    """{key: {name: value}} of the keys whose values are not all the same."""
    keys = sorted(set().union(*named.values()))
    table = {key: {n: some.get(key, "(absent)") for n, some in named.items()} for key in keys}
    return {key: row for key, row in table.items() if len(set(row.values())) > 1}


def identical(configs: Mapping[str, Mapping[int, Mapping]], a: str, b: str) -> bool:
    shared = configs[a].keys() & configs[b].keys()
    return bool(shared) and all(configs[a][seed] == configs[b][seed] for seed in shared)


def identical_arms(configs: Mapping[str, Mapping[int, Mapping]]) -> list[list[str]]:
    """Groups of arms whose configs are the same at every seed that they share."""
    groups: list[list[str]] = []
    for name in configs:
        home = next((group for group in groups if identical(configs, group[0], name)), None)
        if home is None:
            groups.append([name])
        else:
            home.append(name)
    return [group for group in groups if len(group) > 1]


def warnings(runs: Sequence[Run], status: Mapping[str, str], metrics: Sequence[str]) -> list[str]:
    """Sentences on what is incomplete or not alike."""
    sentences = []
    for what, names in {
        "missing": [run.name for run in runs if status[run.name] == "missing"],
        "unfinished": [run.name for run in runs if status[run.name] == "unfinished"],
        "without a record of command and config": [
            run.name for run in runs if run.steps and not run.record.get("config")
        ],
    }.items():
        if names:
            listed = f": {', '.join(names)}" if len(names) < len(runs) else ""
            sentences.append(f"{len(names)} of {len(runs)} runs are {what}{listed}.")
    commits = {record["commit"] for run in runs for record in run.records if record.get("commit")}
    if len(commits) > 1:
        sentences.append(f"The runs are of {len(commits)} commits: {', '.join(sorted(commits))}.")
    if any(commit.endswith("-dirty") or commit == "unknown" for commit in commits):
        sentences.append("Some runs are of code that no commit holds (-dirty or unknown).")
    packages = {run.name: run.record.get("packages") or {} for run in runs if run.record}
    for key, row in differing(packages).items():
        sentences.append(f"Package {key} differs: {', '.join(sorted(set(row.values())))}.")
    for arm in dict.fromkeys(run.arm for run in runs):
        by_seed = {run.seed: settings(run.record) for run in runs if run.arm == arm and run.record}
        for key, row in differing(by_seed).items():
            if "seed" not in key.rpartition(".")[2]:
                values = ", ".join(f"seed {seed}: {value}" for seed, value in row.items())
                sentences.append(f"{arm}: its seeds differ in {key} ({values}).")
    for run in runs:
        if status[run.name] == "finished" and lacks_its_end(run):
            sentences.append(
                f"{run.name}: its metrics end at step {run.last_step}, before its last checkpoint "
                f"(step {run.folder.checkpoint_step()}): it has no final value of its training."
            )
        for metric in metrics:
            rows = {s: row[metric] for s, row in run.steps.items() if metric in row}
            if bad := [step for step, value in rows.items() if finite(value) is None]:
                shown = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
                sentences.append(f"{run.name}: {metric} is no finite number at step {shown}.")
    return sentences
