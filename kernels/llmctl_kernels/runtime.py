"""Whether Triton kernels can run, and where."""

import os
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU with NumPy: for tests. To be set before Triton is imported."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


@torch.compiler.assume_constant_result  # `torch.compile` need not trace how packages and devices are looked up
def missing(device_type: str) -> str | None:
    """Why Triton kernels cannot run on such a device, if so."""
    return _missing(device_type)


@lru_cache
def _missing(device_type: str) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed"
    if interpreted():
        return None if device_type == "cpu" else "TRITON_INTERPRET is set, which is for CPUs"
    if device_type != "cuda":
        return f"Triton has no kernels for a {device_type.upper()}"
    major, minor = torch.cuda.get_device_capability()
    if torch.version.hip is None and major < 8:  # no bfloat16 products before Ampere
        return f"the GPU's compute capability is {major}.{minor}, and 8.0 or later is needed"
    return None


def power_of_two(size: int, least: int = 1) -> int:
    """The power of two that holds `size`, and is no less than `least`."""
    return max(least, 1 << max(0, size - 1).bit_length())


def with_dense_rows(tensor: Tensor) -> Tensor:
    """The tensor `[..., D]`, copied unless the numbers of its last dimension lie side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
