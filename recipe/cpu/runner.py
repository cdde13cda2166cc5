"""verl's task runner without a process of its own: on few cores each import of verl costs a run's
start five to ten seconds, and the launching process has done it already.

`run_ppo` of verl takes the task runner as an argument ("for recipe to change TaskRunner") and calls
it as a Ray actor class; `LocalTaskRunner` answers those calls from this process.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import ray
from verl.trainer.main_ppo import TaskRunnerV1

from recipe.cpu import segments
from recipe.cpu.rollout import LeanAgentLoopManager
from recipe.cpu.startup import SideBySide


class LocalTaskRunner(TaskRunnerV1.__ray_metadata__.modified_class):
    @classmethod
    def remote(cls) -> SimpleNamespace:
        """What `run_ppo` holds for an actor: `ray.get(handle.run.remote(config))` runs it here."""
        run = cls().run
        return SimpleNamespace(run=SimpleNamespace(remote=lambda config: ray.put(run(config))))

    def run(self, config) -> None:
        segments.remove_orphaned_segments()
        # Ray gives these to the processes that it starts, which this one is not
        os.environ.update(ray.get_runtime_context().runtime_env.get("env_vars", {}))
        start_up = SideBySide(config)
        try:
            super().run(config)
        finally:
            start_up.finished()

    def init_agent_loop_manager(self) -> None:
        """verl asks TransferQueue again and again whether the rollouts are there, and reads all
        tags for it; a manager in this process can say when they are."""
        super().init_agent_loop_manager()
        manager, buffer = self.agent_loop_manager, self.trainer.replay_buffer
        if isinstance(manager, LeanAgentLoopManager):
            sample = buffer.sample

            def sample_when_generated(*args, **kwargs):
                manager.wait()
                return sample(*args, **kwargs)

            buffer.sample = sample_when_generated
