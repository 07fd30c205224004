"""How many rows of queries and of keys a program holds at a time, and with how many warps and stages."""

from dataclasses import dataclass
from functools import lru_cache

import torch

from llmctl_kernels.runtime import interpreted, power_of_two

HOPPER_SHARED_MEMORY = 227 * 1024
"""Bytes of shared memory that one program can take on a compute capability of 9.0."""
ROOM = 16 * 1024
"""Bytes left to what the compiler keeps in shared memory besides tiles: scores on their way from one layout to another (as
measured where products are those of Ampere), sums over warps."""


@dataclass(frozen=True)
class Blocks:
    """A program holds `rows` queries and `keys` keys at a time; the loop of it loads `stages` tiles ahead."""

    rows: int
    keys: int
    warps: int
    stages: int


INTERPRETED = Blocks(16, 16, 1, 1)
"""Under the interpreter: several blocks at the sizes of tests."""


@lru_cache
def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that one program can take on a device."""
    if device.type != "cuda":
        return HOPPER_SHARED_MEMORY
    return torch.cuda.get_device_properties(device).shared_memory_per_block_optin


def forward_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: queries. Streamed: keys and values. `available` is in bytes.

    In bfloat16 with a head size of 128: queries 128 * 128 * 2 B = 32 KiB, keys and values 2 * 64 * 128 * 2 B = 32 KiB a
    stage; 3 stages make 128 KiB of Hopper's 227, and 1 makes 64 KiB of the 99 that GPUs for desktops have.
    """
    if interpreted():
        return INTERPRETED
    rows, keys = (32, 32) if dtype == torch.float32 else (128, 64)
    rows, keys, stages = _fitting(rows, keys, 1, 3, head_size, dtype, available)
    # 4 warps let two programs share a multiprocessor's registers where the head is small, and one's softmax hide the other's
    return Blocks(rows, keys, 4 if head_size <= 64 and rows == 128 else 8, stages)


def query_gradient_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: queries and gradients of the output. Streamed: keys and values.

    In bfloat16 with a head size of 128: held 2 * 32 KiB, 32 KiB a stage, 160 KiB in 3 stages. With 256: 128 and 32 KiB.
    """
    if interpreted():
        return INTERPRETED
    rows, keys = (32, 32) if dtype == torch.float32 else (128, 64 if head_size <= 128 else 32)
    rows, keys, stages = _fitting(rows, keys, 2, 3, head_size, dtype, available)
    return Blocks(rows, keys, 8, stages)


def key_gradient_blocks(head_size: int, dtype: torch.dtype, available: int = HOPPER_SHARED_MEMORY) -> Blocks:
    """Held: keys and values. Streamed: queries and gradients of the output.

    The two sums of 128 keys and a head size of 128 take 2 * 128 * 128 floats: 128 registers of each of 256 threads, of 255
    that it has. With 64 queries at a time ptxas spills hundreds of bytes, with 32 and 2 stages some 30.
    In bfloat16: held 2 * 32 KiB, 16 KiB a stage, 96 KiB.
    """
    if interpreted():
        return INTERPRETED
    keys, rows = (32, 32) if dtype == torch.float32 else (128 if head_size <= 128 else 64, 32)
    keys, rows, stages = _fitting(keys, rows, 2, 2, head_size, dtype, available)
    return Blocks(rows, keys, 8, stages)


def _fitting(
    held: int, streamed: int, held_tiles: int, most_stages: int, head_size: int, dtype: torch.dtype, available: int
) -> tuple[int, int, int]:
    """Held and streamed rows and stages that fit in shared memory; the greater number is halved until they do."""
    width = power_of_two(head_size, 16)
    if dtype == torch.float32 and width > 64:
        held, streamed = 16, 16  # products of float32 go without tensor cores, and unroll to an instruction per term
    bytes_per_row = width * dtype.itemsize
    while (held_tiles * held + 2 * streamed) * bytes_per_row > available - ROOM and max(held, streamed) > 16:
        held, streamed = (held // 2, streamed) if held >= streamed else (held, streamed // 2)
    stages = (available - ROOM - held_tiles * held * bytes_per_row) // (2 * streamed * bytes_per_row)
    return held, streamed, min(most_stages, max(1, stages))
