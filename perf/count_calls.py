"""For perf/phases.py: counts what each process of a run asks of others, and when its steps end.

Loaded by `VERL_USE_EXTERNAL_MODULES`. A line `time kind what` per event goes to a file of this
process in the folder RECIPE_CALLS: a request to TransferQueue's controller or storage, a call of a
Ray actor, the end of the start-up or of a step.
"""

import os
import time
from pathlib import Path

import wrapt


def log(kind, what):
    with (Path(os.environ["RECIPE_CALLS"]) / f"{os.getpid()}.txt").open("a") as file:
        file.write(f"{time.time():.6f} {kind} {what}\n")


def count_requests(zmq_utils):
    create = zmq_utils.ZMQMessage.create.__func__

    def counted(cls, request_type, *args, **kwargs):
        if not request_type.name.endswith(("RESPONSE", "ACK")):
            log("queue", request_type.name)
        return create(cls, request_type, *args, **kwargs)

    zmq_utils.ZMQMessage.create = classmethod(counted)


def count_actor_calls(actor):
    remote = actor.ActorMethod._remote

    def counted(self, *args, **kwargs):
        log("ray", self._method_name)
        return remote(self, *args, **kwargs)

    actor.ActorMethod._remote = counted


def mark_steps(trainer):
    cls = trainer.RecipeTrainerSync

    def mark(name, event):
        hook = getattr(cls, name)

        def marked(self):
            hook(self)
            log("mark", event)

        setattr(cls, name, marked)

    mark("on_train_begin", "start")
    mark("on_step_end", "step")


wrapt.register_post_import_hook(count_requests, "transfer_queue.utils.zmq_utils")
wrapt.register_post_import_hook(count_actor_calls, "ray.actor")
wrapt.register_post_import_hook(mark_steps, "recipe.trainer")
