"""The `verl.plugins` entry point: what every verl process has once this package is installed.

verl imports this module at the end of `import verl`, in the driver, in Ray actors and in vLLM
workers. Registrations run when the verl module that they extend is imported, so a process that
never touches the trainer does not pay for it. verl logs a plugin that raises at debug level only:
`recipe.launch` checks that the registrations are really there (`recipe.launch.preflight`).
"""

from __future__ import annotations

import importlib

import wrapt

from recipe.core import transfer_queue
from recipe.cpu import platform

# verl module that is extended -> our module that extends it when imported
EXTENSIONS = {
    "verl.trainer.ppo.core_algos": [
        "recipe.asymgrpo.register",
        "recipe.clip_entropy.register",
        "recipe.semantic_curriculum.register",
    ],
    "verl.trainer.ppo.v1.trainer_sync": ["recipe.trainer"],
}


def _load(modules: list[str]):
    def load(_):
        for module in modules:
            importlib.import_module(module)

    return load


platform.install()
for host, modules in EXTENSIONS.items():
    wrapt.register_post_import_hook(_load(modules), host)
wrapt.register_post_import_hook(transfer_queue.install, "transfer_queue.interface")
