"""How many rows of queries and of keys a program holds at a time, and with how many warps and stages."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from llmctl_kernels.runtime import block_of, interpreted

HOPPER_SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that one program can take on a compute capability of 9.0."""
ROOM = 2048
"""Bytes left to what the compiler keeps in shared memory besides tiles: barriers, sums over warps."""


@dataclass(frozen=True)
class Blocks:
    """A program holds `rows` queries and `keys` keys at a time; the loop of it loads `stages` tiles ahead."""

    rows: int
    keys: int
    warps: int
    stages: int


@lru_cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program can take on a device."""
    if device.type != "cuda":
        return HOPPER_SHARED_MEMORY
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def forward_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: queries. Streamed: keys and values. `available` is in bytes.

    In bfloat16 with a head size of 128: queries 128 * 128 * 2 B = 32 KiB, keys and values 2 * 64 * 128 * 2 B = 32 KiB a
    stage; 3 stages make 128 KiB of Hopper's 227, and 2 make 96 KiB of the 99 that GPUs for desktops have.
    """
    return _blocks(128, 64, head_size, dtype, available, held_tiles=1, rows_are_held=True)


def query_gradient_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: queries and gradients of the output. Streamed: keys and values.

    In bfloat16 with a head size of 128: held 2 * 32 KiB, 32 KiB a stage.
    """
    return _blocks(128, 64, head_size, dtype, available, held_tiles=2, rows_are_held=True)


def key_gradient_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: keys and values. Streamed: queries and gradients of the output.

    With a head size of 128 the two sums take 2 * 128 * 128 floats: 128 registers of each of 256 threads, of 255 that it has.
    """
    return _blocks(128, 64, head_size, dtype, available, held_tiles=2, rows_are_held=False)


def _blocks(
    held: int, streamed: int, head_size: int, dtype: torch.dtype, available: int, held_tiles: int, rows_are_held: bool
) -> Blocks:
    if interpreted():
        return Blocks(16, 16, 1, 1)  # several blocks at the sizes of tests
    width = block_of(head_size, 16)
    if dtype == torch.float32:  # products of floats do without tensor cores, and unroll to one instruction a term
        held, streamed = 32, 32
    elif width > 128:
        held, streamed = held // 2, streamed // 2
    held_bytes = held_tiles * held * width * dtype.itemsize
    stage_bytes = 2 * streamed * width * dtype.itemsize
    stages = min(3, max(1, (available - ROOM - held_bytes) // stage_bytes))
    warps = 4 if dtype == torch.float32 else 8
    return Blocks(held, streamed, warps, stages) if rows_are_held else Blocks(streamed, held, warps, stages)
