"""Any module of the recipes may be the first that a process imports: verl's plugin hooks import the
recipes' modules while verl is being imported, which must not meet a half-loaded one."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("verl")

from recipe.core.recipe import FOLDER, recipes

CODE = """
import importlib, sys
importlib.import_module(sys.argv[1])
from verl.trainer.ppo import core_algos
from recipe.core.recipe import recipes
for record in recipes():
    assert set(record.estimators) <= set(core_algos.ADV_ESTIMATOR_REGISTRY), record.name
    assert set(record.losses) <= set(core_algos.POLICY_LOSS_REGISTRY), record.name
"""
MODULES = ["recipe.core.actor_loss", "recipe.clip_entropy.register"] + [
    f"{record.package}.part" for record in recipes() if record.folder.parent == FOLDER
]


def test_a_module_may_be_imported_first():
    """Each in a process of its own, two at a time: most of it is verl's import."""

    def start(module: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", CODE, module]
        return subprocess.run(command, capture_output=True, text=True)

    with ThreadPoolExecutor(2) as pool:
        for module, done in zip(MODULES, pool.map(start, MODULES), strict=True):
            assert done.returncode == 0, f"{module}: {done.stderr[-2000:]}"
