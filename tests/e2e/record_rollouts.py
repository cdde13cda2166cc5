"""Writes each rollout of each step, as the trainer finds it in TransferQueue before the advantages,
to the file RECIPE_TEST_ROLLOUTS. Loaded by `VERL_USE_EXTERNAL_MODULES`.
"""

import json
import os
from pathlib import Path

import wrapt

FIELDS = ("prompts", "responses", "response_mask", "loss_mask", "input_ids", "position_ids")
FLOATS = ("rm_scores", "rollout_log_probs", "old_log_probs")
TEXTS = ("raw_prompt", "data_source", "reward_model", "extra_info", "num_turns", "extra_fields")


def record(trainer):
    stock = trainer.RecipeTrainerSync._compute_advantage

    def recording(self, batch, metrics):
        data = trainer.transfer_queue.read(batch, *FIELDS, *FLOATS, *TEXTS)
        with Path(os.environ["RECIPE_TEST_ROLLOUTS"]).open("a") as file:
            for row, (key, tag) in enumerate(zip(batch.keys, batch.tags, strict=True)):
                values = {name: data[name][row].tolist() for name in (*FIELDS, *FLOATS)}
                texts = {name: list(data.get(name))[row] for name in TEXTS}
                texts = {name: getattr(text, "data", text) for name, text in texts.items()}
                # how much of a prompt was in vLLM's cache depends on who came first
                texts["extra_fields"].pop("num_cached_tokens")
                line = {"session": key.split("_")[1], "tag": tag, **values, **texts}
                file.write(json.dumps(line, default=str) + "\n")
        return stock(self, batch, metrics)

    trainer.RecipeTrainerSync._compute_advantage = recording


wrapt.register_post_import_hook(record, "recipe.trainer")
