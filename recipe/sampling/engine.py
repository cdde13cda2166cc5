"""Responses of a model to many prompts, in this process or spread over a Ray cluster.

By vLLM, or by transformers alone, which starts at once and is faster for a tiny model on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from recipe.cpu import platform


class Job(NamedTuple):
    """A chunk of prompts: its number, and of each prompt its token ids and its seed."""

    number: int
    prompts: list[list[int]]
    seeds: list[int]


class Responses(NamedTuple):
    """For each prompt of a job its G responses, and of each its log-likelihood in nats, its number
    of tokens, and whether the limit cut it off."""

    texts: list[list[str]]
    log_likelihoods: list[list[float]] | None = None  # only where asked for
    tokens: list[list[int]] | None = None
    truncated: list[list[bool]] | None = None


@dataclass(frozen=True)
class Sampling:
    """What decides the responses: all of it is kept beside them."""

    model: str
    samples: int = 8
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    max_prompt_length: int = 1024  # tokens; longer prompts are left out
    max_response_length: int = 2048  # tokens
    seed: int = 0


@dataclass(frozen=True)
class Hardware:
    """What does not: replicas of the model, each on `tensor_parallel` GPUs."""

    replicas: int = 1
    tensor_parallel: int = 1
    gpu_memory_utilization: float = 0.9
    dtype: str = "auto"
    engine: str = "vllm"  # or transformers
    likelihoods: bool = True  # of the responses; they more than double vLLM's time on a CPU


class Engine:
    """One vLLM engine."""

    def __init__(self, sampling: Sampling, hardware: Hardware, longest_prompt: int):
        platform.install()  # vLLM's settings on a machine without a GPU; nothing elsewhere
        from vllm import LLM

        cpu: dict[str, Any] = {"enforce_eager": True} if platform.active() else {}
        self.sampling, self.likelihoods = sampling, hardware.likelihoods
        self.llm = LLM(
            os.path.expanduser(sampling.model),
            tensor_parallel_size=hardware.tensor_parallel,
            dtype="float32" if platform.active() and hardware.dtype == "auto" else hardware.dtype,
            max_model_len=longest_prompt + sampling.max_response_length,
            gpu_memory_utilization=0.5 if platform.active() else hardware.gpu_memory_utilization,
            **cpu,
        )

    def sample(self, job: Job) -> tuple[int, Responses]:
        from vllm import SamplingParams

        of = self.sampling
        parameters = [
            SamplingParams(
                n=of.samples,
                temperature=of.temperature,
                top_p=of.top_p,
                top_k=of.top_k,
                max_tokens=of.max_response_length,
                logprobs=0 if self.likelihoods else None,
                seed=seed,
            )
            for seed in job.seeds
        ]
        prompts = [{"prompt_token_ids": ids} for ids in job.prompts]
        outputs = [out.outputs for out in self.llm.generate(prompts, parameters, use_tqdm=False)]
        return job.number, Responses(
            [[one.text for one in group] for group in outputs],
            [[float(one.cumulative_logprob) for one in group] for group in outputs]
            if self.likelihoods
            else None,
            [[len(one.token_ids) for one in group] for group in outputs],
            [[one.finish_reason == "length" for one in group] for group in outputs],
        )


class TransformersEngine:
    """`generate` of a Hugging Face model, in float32 on a CPU, on one GPU else. A chunk's responses
    are drawn with one seed, its first prompt's."""

    BATCH = 512  # sequences at once

    def __init__(self, sampling: Sampling, hardware: Hardware, longest_prompt: int):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        name = os.path.expanduser(sampling.model)
        on_gpu = torch.cuda.is_available()
        dtype = "float32" if not on_gpu and hardware.dtype == "auto" else hardware.dtype
        self.sampling = sampling
        self.tokenizer = AutoTokenizer.from_pretrained(name)
        self.model = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).eval()
        self.model.to("cuda" if on_gpu else "cpu")

    def sample(self, job: Job) -> tuple[int, Responses]:
        import torch

        of = self.sampling
        torch.manual_seed(job.seeds[0])
        ends = self.model.generation_config.eos_token_id
        ends = torch.tensor([ends] if isinstance(ends, int) else ends or [])
        draw = {"do_sample": False}
        if of.temperature > 0:
            draw = {
                **{"do_sample": True, "temperature": of.temperature, "top_p": of.top_p},
                **{"top_k": max(of.top_k, 0), "num_return_sequences": of.samples},
            }
        found = Responses([], None, [], [])
        size = max(1, self.BATCH // of.samples)
        for start in range(0, len(job.prompts), size):
            prompts = job.prompts[start : start + size]
            width = max(map(len, prompts))
            pad = self.tokenizer.pad_token_id or 0
            ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts])
            mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids.to(self.model.device),
                    attention_mask=mask.to(self.model.device),
                    max_new_tokens=of.max_response_length,
                    pad_token_id=pad,
                    **draw,
                )
            new = out[:, width:].cpu()
            ended = torch.isin(new, ends)
            before = ended.cumsum(1) - ended.long()  # ends before each token
            tokens = (before == 0).sum(1).view(len(prompts), -1)
            cut = (~ended.any(1)).view(len(prompts), -1)
            own = [row[:n] for row, n in zip(new.tolist(), tokens.flatten().tolist(), strict=True)]
            texts = self.tokenizer.batch_decode(own, skip_special_tokens=True)
            each = tokens.shape[1]
            found.texts.extend(texts[i : i + each] for i in range(0, len(texts), each))
            found.tokens.extend(tokens.tolist())
            found.truncated.extend(cut.tolist())
        return job.number, found


ENGINES = {"vllm": Engine, "transformers": TransformersEngine}


def sample_all(
    jobs: Iterable[Job], sampling: Sampling, hardware: Hardware, longest_prompt: int
) -> Iterator[tuple[int, Responses]]:
    """(job number, responses) as they are done; with several replicas in any order."""
    if hardware.replicas == 1:
        engine = ENGINES[hardware.engine](sampling, hardware, longest_prompt)
        yield from map(engine.sample, jobs)
        return
    import ray
    from ray.util import ActorPool

    ray.init(ignore_reinit_error=True, include_dashboard=False)
    gpus = 0 if platform.active() else hardware.tensor_parallel
    replica = ray.remote(num_gpus=gpus, num_cpus=1)(ENGINES[hardware.engine])
    settings = sampling, hardware, longest_prompt
    replicas = [replica.remote(*settings) for _ in range(hardware.replicas)]
    try:
        pool = ActorPool(replicas)
        yield from pool.map_unordered(lambda actor, job: actor.sample.remote(job), jobs)
    finally:
        for actor in replicas:
            ray.kill(actor)
        ray.shutdown()


def default_replicas(tensor_parallel: int) -> int:
    """As many as the GPUs of this machine, or of the Ray cluster of RAY_ADDRESS, can hold; at
    least 1."""
    if platform.active():
        return 1
    if os.environ.get("RAY_ADDRESS"):
        import ray

        ray.init(ignore_reinit_error=True)
        return max(1, int(ray.cluster_resources().get("GPU", 0)) // tensor_parallel)
    import torch

    return max(1, torch.cuda.device_count() // tensor_parallel)
