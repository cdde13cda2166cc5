"""Responses of a model to many prompts, in this process or by replicas in a Ray cluster.

By vLLM, or by transformers alone, which starts at once and is faster for a tiny model on a CPU.
All replicas are in one placement group: Ray lends it all of its devices or none, so that two
evaluations never wait for each other's, and no replica takes a device beyond it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from recipe import machine
from recipe.core.files import local_path

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup
    from torch import Tensor

DEVICE_WAIT = 1800  # seconds, for devices that other jobs of the cluster hold


class Chunk(NamedTuple):
    """Prompts that are sampled together: a number that names them, and of each prompt its token
    ids and its seed."""

    number: int
    prompts: list[list[int]]
    seeds: list[int]


class Responses(NamedTuple):
    """For each prompt of a chunk its G responses, and of each its log-likelihood in nats, its
    number of tokens, and whether the limit cut it off."""

    texts: list[list[str]]
    log_likelihoods: list[list[float]] | None = None  # only where asked for
    tokens: list[list[int]] | None = None
    truncated: list[list[bool]] | None = None


@dataclass(frozen=True)
class Sampling:
    """What decides the responses; all of it is stored beside them."""

    model: str
    samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_prompt_length: int = 1024  # tokens; longer prompts are left out
    max_response_length: int = 2048  # tokens
    seed: int = 0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Hardware:
    """What does not decide them: replicas of the model, each on `tensor_parallel` device slots."""

    replicas: int | None = None  # None: as many as fit
    tensor_parallel: int = 1
    gpu_memory_utilization: float = field(
        default_factory=lambda: machine.engine_defaults().gpu_memory_utilization
    )
    dtype: str = field(default_factory=lambda: machine.engine_defaults().dtype)
    enforce_eager: bool = field(default_factory=lambda: machine.engine_defaults().enforce_eager)
    engine: str = "vllm"  # a key of ENGINES
    likelihoods: bool = True  # of the responses; they more than double vLLM's time on a CPU


class VLLMEngine:
    """One vLLM engine."""

    def __init__(self, sampling: Sampling, hardware: Hardware, longest_prompt: int):
        machine.prepare()
        # vLLM forks its process by default, and OpenMP, which this one has used if it has merged a
        # checkpoint, hangs in a fork
        os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
        from vllm import LLM

        self.sampling, self.likelihoods = sampling, hardware.likelihoods
        self.llm = LLM(
            os.path.expanduser(sampling.model),
            tensor_parallel_size=hardware.tensor_parallel,
            # by default vLLM spreads over the placement group that its actor is in, which is full
            distributed_executor_backend="mp" if hardware.tensor_parallel > 1 else None,
            dtype=hardware.dtype,
            max_model_len=longest_prompt + sampling.max_response_length,
            gpu_memory_utilization=hardware.gpu_memory_utilization,
            enforce_eager=hardware.enforce_eager,
            enable_chunked_prefill=machine.engine_defaults().chunked_prefill,
        )

    def sample(self, chunk: Chunk) -> tuple[int, Responses]:
        """Returns the chunk's number and its responses, each prompt's drawn with its own seed."""
        from vllm import SamplingParams

        settings = self.sampling
        parameters = [
            SamplingParams(
                n=settings.samples,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                max_tokens=settings.max_response_length,
                logprobs=0 if self.likelihoods else None,
                seed=seed,
            )
            for seed in chunk.seeds
        ]
        prompts = [{"prompt_token_ids": ids} for ids in chunk.prompts]
        outputs = [out.outputs for out in self.llm.generate(prompts, parameters, use_tqdm=False)]
        return chunk.number, Responses(
            [[response.text for response in group] for group in outputs],
            [[float(response.cumulative_logprob) for response in group] for group in outputs]
            if self.likelihoods
            else None,
            [[len(response.token_ids) for response in group] for group in outputs],
            [[response.finish_reason == "length" for response in group] for group in outputs],
        )

    def close(self) -> None:
        """Ends vLLM's process, which does not see that this one ends (`flags.leave`)."""
        self.llm.llm_engine.engine_core.shutdown()


class TransformersEngine:
    """`generate` of a Hugging Face model on this process's accelerator, or on the CPU. A chunk's
    responses are drawn with one seed, its first prompt's. It gives no log-likelihoods.

    As with vLLM, `Sampling` alone decides how tokens are drawn: of the model's generation_config,
    which may have a repetition penalty or min_p, it takes the tokens that end a response."""

    BATCH = 512  # sequences at a time

    def __init__(self, sampling: Sampling, hardware: Hardware, longest_prompt: int):
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        model = os.path.expanduser(sampling.model)
        self.sampling = sampling
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=hardware.dtype).eval()
        self.model.to(machine.torch_device())
        # the model's own, as `generate` fills what is not given from there
        self.model.generation_config = GenerationConfig(
            eos_token_id=self.model.generation_config.eos_token_id,
            pad_token_id=self.tokenizer.pad_token_id or 0,
        )

    def sample(self, chunk: Chunk) -> tuple[int, Responses]:
        """Returns the chunk's number and its responses."""
        import torch

        torch.manual_seed(chunk.seeds[0])
        responses = Responses([], None, [], [])
        size = max(1, self.BATCH // self.sampling.samples)
        for start in range(0, len(chunk.prompts), size):
            batch = self._sample_batch(chunk.prompts[start : start + size])
            for all_values, values in zip(responses, batch, strict=True):
                if values is not None:
                    all_values.extend(values)
        return chunk.number, responses

    def close(self) -> None:
        """Does nothing: the model is in this process."""

    def _generate(self, prompts: list[list[int]]) -> Tensor:
        """Returns (B, T) tokens of the responses, padded at the end; B: prompts times samples."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        settings = self.sampling
        draw: dict[str, Any] = {"do_sample": False}
        if settings.temperature > 0:
            draw = {
                "do_sample": True,
                "temperature": settings.temperature,
                "top_p": settings.top_p,
                "top_k": max(settings.top_k, 0),
                "num_return_sequences": settings.samples,
            }
        pad = self.model.generation_config.pad_token_id
        left = {"batch_first": True, "padding_side": "left"}
        ids = pad_sequence([torch.tensor(prompt) for prompt in prompts], padding_value=pad, **left)
        mask = pad_sequence([torch.ones(len(p), dtype=torch.long) for p in prompts], **left)
        with torch.inference_mode():
            out = self.model.generate(
                input_ids=ids.to(self.model.device),
                attention_mask=mask.to(self.model.device),
                max_new_tokens=settings.max_response_length,
                **draw,
            )
        return out[:, ids.shape[1] :].cpu()

    def _sample_batch(self, prompts: list[list[int]]) -> Responses:
        import torch

        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor([ends] if isinstance(ends, int) else ends or [])
        tokens_BT = self._generate(prompts)
        ended_BT = torch.isin(tokens_BT, ends)
        ends_before_BT = ended_BT.cumsum(1) - ended_BT.long()
        lengths_B = (ends_before_BT == 0).sum(1)  # the end token counts
        texts = self.tokenizer.batch_decode(
            [row[:n] for row, n in zip(tokens_BT.tolist(), lengths_B.tolist(), strict=True)],
            skip_special_tokens=True,
        )
        samples = len(texts) // len(prompts)
        return Responses(
            [texts[i : i + samples] for i in range(0, len(texts), samples)],
            None,
            lengths_B.view(len(prompts), -1).tolist(),
            (~ended_BT.any(1)).view(len(prompts), -1).tolist(),
        )


ENGINES = {"vllm": VLLMEngine, "transformers": TransformersEngine}


def sample_all(
    chunks: Iterable[Chunk], sampling: Sampling, hardware: Hardware, longest_prompt: int
) -> Iterator[tuple[int, Responses]]:
    """Yields (number of a chunk, responses) as they are done; with several replicas in any order.

    Args:
        chunks: their numbers differ.
        sampling: what decides the responses.
        hardware: a replica is a Ray actor; a single one is this process, except in a shared cluster
            (RAY_ADDRESS), where only an actor's devices are the cluster's to lend.
        longest_prompt: tokens.

    Raises:
        ValueError: if the machine, or the cluster of RAY_ADDRESS, lacks the devices.
        TimeoutError: if other jobs of the cluster hold them for DEVICE_WAIT seconds.
    """
    chunks = list(chunks)
    replicas = hardware.replicas or default_replicas(hardware.tensor_parallel)
    replicas = min(replicas, max(1, len(chunks)))  # one without a chunk would load for nothing
    # an actor's folder is that of its node's `ray start`; `sampling` itself is recorded as it is
    absolute = replace(sampling, model=local_path(sampling.model) or sampling.model)
    engine, settings = ENGINES[hardware.engine], (absolute, hardware, longest_prompt)
    if replicas == 1 and not in_cluster():
        with closing(engine(*settings)) as alone:
            yield from map(alone.sample, chunks)
        return
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    connect(replicas, hardware.tensor_parallel)
    try:
        with placement_group_of(replicas, hardware.tensor_parallel) as group:
            # the devices alone decide where a replica is placed
            actor_class = ray.remote(num_gpus=hardware.tensor_parallel, num_cpus=0)(engine)
            actors = [
                actor_class.options(
                    scheduling_strategy=PlacementGroupSchedulingStrategy(group, bundle)
                ).remote(*settings)
                for bundle in range(replicas)
            ]
            try:
                yield from spread(chunks, actors)
            finally:
                for actor in actors:
                    ray.kill(actor)  # with its child processes
    finally:
        ray.shutdown()


@contextmanager
def placement_group_of(replicas: int, tensor_parallel: int) -> Iterator[PlacementGroup]:
    """Yields a placement group that holds `tensor_parallel` devices for each replica; gives them
    back at the end.

    Raises:
        TimeoutError: if other jobs hold them for DEVICE_WAIT seconds.
    """
    from ray.util import placement_group, remove_placement_group

    group = placement_group([{"GPU": tensor_parallel} for _ in range(replicas)], strategy="PACK")
    try:
        if not group.wait(timeout_seconds=2):
            devices = replicas * tensor_parallel
            print(f"waiting for {devices} GPUs of the Ray cluster, which others hold", flush=True)
            if not group.wait(timeout_seconds=DEVICE_WAIT):
                raise TimeoutError(
                    f"--replicas {replicas} with --tensor-parallel {tensor_parallel} needs "
                    f"{devices} GPUs, and other jobs of the Ray cluster have held them for "
                    f"{DEVICE_WAIT // 60} minutes: use fewer, or start the command again later."
                )
        yield group
    finally:
        remove_placement_group(group)


def spread(chunks: Iterable[Chunk], actors: list[Any]) -> Iterator[tuple[int, Responses]]:
    """Yields what the actors' `sample` returns for each chunk, as it is done.

    An actor gets its first chunk when it has its devices and its model, so that one that still
    waits for devices holds nothing up.
    """
    import ray

    waiting = deque(chunks)
    missing = len(waiting)
    pending = {actor.__ray_ready__.remote(): actor for actor in actors}
    while missing:
        (done, *_), _ = ray.wait(list(pending))
        actor, result = pending.pop(done), ray.get(done)
        if waiting:
            pending[actor.sample.remote(waiting.popleft())] = actor
        if result is not True:  # what __ray_ready__ returns
            missing -= 1
            yield result


def in_cluster() -> bool:
    """Says whether this process is to join a Ray cluster, which other jobs may use as well."""
    return bool(os.environ.get("RAY_ADDRESS"))


def connect(replicas: int, tensor_parallel: int) -> None:
    """Joins the Ray cluster of RAY_ADDRESS, or starts one on this machine with the slots needed.

    Raises ValueError if it could not hold the replicas even if it were free.
    """
    if in_cluster():
        place, fit = "the Ray cluster of RAY_ADDRESS", cluster_places(tensor_parallel)
    else:
        place, fit = "this machine", machine.device_slots() // tensor_parallel
    if fit < replicas:
        raise ValueError(
            f"--replicas {replicas} with --tensor-parallel {tensor_parallel} needs "
            f"{replicas * tensor_parallel} GPUs, those of a replica on one node, and {place} has "
            f"room for {fit} replicas: use fewer, or a smaller --tensor-parallel."
        )
    machine.prepare()
    import ray

    # local: not the cluster that a `ray start` without RAY_ADDRESS may have left here
    alone = {"address": "local", "num_gpus": replicas * tensor_parallel}
    ray.init(include_dashboard=False, **({} if in_cluster() else alone))


def cluster_places(tensor_parallel: int, free: bool = False) -> int:
    """Returns how many replicas the GPUs of the Ray cluster of RAY_ADDRESS hold, each of them on
    one node; with `free` those GPUs only that no job holds now."""
    machine.prepare()
    import ray

    ray.init()
    try:
        nodes: list[Mapping[str, float]]
        if free:  # as verl asks: Ray has no public function for it
            nodes = list(ray._private.state.available_resources_per_node().values())
        else:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    finally:
        ray.shutdown()
    return sum(int(resources.get("GPU", 0)) // tensor_parallel for resources in nodes)


def default_replicas(tensor_parallel: int) -> int:
    """Returns how many replicas fit: on the devices of the Ray cluster of RAY_ADDRESS that are free
    now, or on this machine; at least 1."""
    if in_cluster():
        return max(1, cluster_places(tensor_parallel, free=True))
    return machine.default_engines(tensor_parallel)
