"""Rollouts that fail on purpose, and a record of what each rank's loss then saw.

Loaded by `VERL_USE_EXTERNAL_MODULES`. In training step RECIPE_TEST_FAIL_STEP the agent loop raises
for the first RECIPE_TEST_FAIL_SESSIONS sessions of the first prompt that it meets, and for all of
the second. What failed, and the advantage and tokens of each row of each micro-batch, goes to the
folder RECIPE_TEST_FAILED.
"""

import json
import os
from pathlib import Path

import wrapt

met: list[str] = []  # prompts of that step, in the order in which this process met them


def write(name: str, row: dict) -> None:
    with (Path(os.environ["RECIPE_TEST_FAILED"]) / f"{name}.jsonl").open("a") as out:
        out.write(json.dumps(row) + "\n")


def fail_some(single_turn):
    run = single_turn.SingleTurnAgentLoop.run

    async def failing(self, sampling_params, **row):
        uid, session = str(row["uid"]), int(row["session_id"])
        if int(row["global_steps"]) == int(os.environ["RECIPE_TEST_FAIL_STEP"]):
            if uid not in met:
                met.append(uid)
            place = met.index(uid)
            some = int(os.environ["RECIPE_TEST_FAIL_SESSIONS"])
            if (place == 0 and session < some) or place == 1:
                text = row["raw_prompt"][0]["content"]
                write("failed", {"uid": uid, "session": session, "prompt": text})
                raise RuntimeError(f"recipe_test: rollout {session} of prompt {place} fails")
        return await run(self, sampling_params, **row)

    single_turn.SingleTurnAgentLoop.run = failing


def record_rows(register):
    from verl.trainer.ppo.core_algos import POLICY_LOSS_REGISTRY

    stock = POLICY_LOSS_REGISTRY["sent"]

    def recording(**arguments):
        result = stock(**arguments)
        mask_BT = arguments["response_mask"].bool()
        micro_batch = register.actor_loss.current()
        row = {
            "tokens_of_mini_batch": int(arguments["config"].global_batch_info["batch_num_tokens"]),
            "low": int(((micro_batch.padded(register.CLASS_FIELD) != 0) & mask_BT).sum()),
            # a row's first token has its advantage; verl's padding has a token, outside the mask
            "advantages": arguments["advantages"][:, 0].tolist(),
            "tokens": mask_BT.sum(1).tolist(),
        }
        write(f"rank{os.environ['RANK']}", row)
        return result

    POLICY_LOSS_REGISTRY["sent"] = recording


wrapt.register_post_import_hook(fail_some, "verl.experimental.agent_loop.single_turn_agent_loop")
wrapt.register_post_import_hook(record_rows, "recipe.semantic_curriculum.register")
