"""The `verl.plugins` entry point: what every verl process has once this package is installed.

verl imports this module at the end of `import verl`, in the driver, in Ray actors and in vLLM
workers. Registrations run when the verl module that they extend is imported, so a process that
never touches the trainer does not pay for it. verl logs a plugin that raises at debug level only:
`recipe.launch` checks that the registrations are really there (`recipe.launch.preflight`).
"""

from __future__ import annotations

import importlib
from typing import Any

import wrapt

from recipe import machine
from recipe.core import bounded_ratio, transfer_queue
from recipe.core.recipe import recipes, register_with_hydra


def register_recipes(_: Any) -> None:
    """Registers every recipe's estimators and losses with verl, and their settings with Hydra."""
    bounded_ratio.install()
    register_with_hydra()
    for record in recipes():
        if record.register is not None:
            record.load(record.register)


def register_trainer(_: Any) -> None:
    """Registers the trainer `recipe_sync`."""
    importlib.import_module("recipe.trainer")


machine.prepare()
wrapt.register_post_import_hook(register_recipes, "verl.trainer.ppo.core_algos")
wrapt.register_post_import_hook(register_trainer, "verl.trainer.ppo.v1.trainer_sync")
wrapt.register_post_import_hook(transfer_queue.install, "transfer_queue.interface")
