"""Any module of the recipes may be the first that a process imports: verl's plugin hooks import the
recipes' modules while verl is being imported, which must not meet a half-loaded one."""

import subprocess
import sys

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
MODULES = [
    f"{record.package}.{file.stem}"
    for record in recipes()
    for file in sorted(record.folder.glob("*.py"))
    if record.folder.parent == FOLDER and file.stem in ("register", "part", "regions", "config")
]


@pytest.mark.parametrize("module", [*MODULES, "recipe.core.actor_loss", "recipe.trainer"])
def test_a_module_may_be_imported_first(module):
    done = subprocess.run([sys.executable, "-c", CODE, module], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
