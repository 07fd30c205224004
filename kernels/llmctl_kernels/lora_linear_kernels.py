"""A Triton kernel for the sum of a product and a product of low rank, which stays in registers until it is whole.

As two products of a library, the [M, P] result is stored, read and stored again: 2 * M * P of 2 bytes that this saves.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels.runtime import interpreted, power_of_two, with_dense_rows


@triton.jit
def sum_kernel(
    left, left_row, right, right_inner, right_column, low, low_row, up, up_inner, up_column, bias, out, scale,
    rows, inner, columns, rank, HAS_BIAS: tl.constexpr, EVEN: tl.constexpr, UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_R: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """A tile of out [M, P] = left [M, K] right [K, P] + bias [P] + scale * low [M, R] up [R, P].

    Tiles go down a stripe of GROUP tiles before they go right: those that run at one time share rows and columns in the L2 cache.
    Rows and columns past the end wrap round to ones that exist, so that only the store needs a mask for them.
    """
    across = tl.cdiv(columns, BLOCK_P)
    stripe = tl.program_id(0) // (GROUP * across)
    height = tl.minimum(tl.cdiv(rows, BLOCK_M) - stripe * GROUP, GROUP)
    place = tl.program_id(0) % (GROUP * across)
    row = (stripe * GROUP + place % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = (place // height) * BLOCK_P + tl.arange(0, BLOCK_P)
    near_row, near_column = (row % rows).to(tl.int64)[:, None], (column % columns).to(tl.int64)[None, :]

    # Low rank first: its scale is then one product over the accumulator, and a second accumulator would not fit in registers.
    total = tl.zeros([BLOCK_M, BLOCK_P], tl.float32)
    for start in range(0, rank, BLOCK_R):
        index = start + tl.arange(0, BLOCK_R)
        some = tl.load(low + near_row * low_row + index[None, :], mask=index[None, :] < rank, other=0.0)
        other = tl.load(up + index[:, None] * up_inner + near_column * up_column, mask=index[:, None] < rank, other=0.0)
        if UPCAST:
            some, other = some.to(tl.float32), other.to(tl.float32)
        total = tl.dot(some, other, total, input_precision="ieee")
    total *= scale

    index = tl.arange(0, BLOCK_K)
    left += near_row * left_row + index[None, :]
    right += index[:, None].to(tl.int64) * right_inner + near_column * right_column
    for start in range(0, inner, BLOCK_K):
        if EVEN:
            some, other = tl.load(left), tl.load(right)
        else:
            some = tl.load(left, mask=index[None, :] < inner - start, other=0.0)
            other = tl.load(right, mask=index[:, None] < inner - start, other=0.0)
        if UPCAST:
            some, other = some.to(tl.float32), other.to(tl.float32)
        total = tl.dot(some, other, total, input_precision="ieee")
        left += BLOCK_K
        right += BLOCK_K * right_inner
    if HAS_BIAS:
        total += tl.load(bias + near_column).to(tl.float32)
    target = out + row.to(tl.int64)[:, None] * columns + column[None, :]
    tl.store(target, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (column < columns)[None, :])


@dataclass(frozen=True, slots=True)
class Tile:
    rows: int
    columns: int
    inner: int
    warps: int
    stages: int

    @property
    def bytes_shared(self) -> int:
        """What half precision takes of a multiprocessor's memory, with a KiB for Triton's own use."""
        return self.stages * (self.rows + self.columns) * self.inner * 2 + 1024


LARGE = Tile(128, 256, 64, 8, 3)
"""Of half precision: two warp groups with 128 accumulators a thread, and 3 stages of 48 KiB of the 227 KiB of an H100."""
MIDDLE = Tile(128, 128, 32, 8, 3)
"""Where that does not fit, as on GPUs for consumers with their 99 KiB."""
SMALL = Tile(64, 64, 32, 4, 2)
"""Of fp32, which tensor cores do not multiply exactly; and of few rows."""
LEAST = Tile(16, 16, 16, 1, 1)
"""For the interpreter: as many tiles as possible of a small product."""


def _tile(rows: int, columns: int, kind: torch.dtype) -> Tile:
    if interpreted():
        return LEAST
    if kind == torch.float32 or rows <= SMALL.rows or columns <= SMALL.columns:
        return SMALL
    shared = getattr(torch.cuda.get_device_properties(), "shared_memory_per_block_optin", 0)
    return LARGE if shared >= LARGE.bytes_shared else MIDDLE


def launch_sum(left: Tensor, right: Tensor, low: Tensor, up: Tensor, bias: Tensor | None, scale: float) -> Tensor:
    """left [M, K], right [K, P] (any strides), low [M, R], up [R, P] (any strides), bias [P] -> [M, P]."""
    left, low = with_dense_rows(left), with_dense_rows(low)
    (rows, inner), columns, rank = left.shape, right.shape[1], low.shape[1]
    out = left.new_empty(rows, columns)
    tile = _tile(rows, columns, left.dtype)
    launch: Any = sum_kernel
    if rows:
        launch[(triton.cdiv(rows, tile.rows) * triton.cdiv(columns, tile.columns),)](
            left, left.stride(0), right, *right.stride(), low, low.stride(0), up, *up.stride(),
            out if bias is None else bias, out, scale, rows, inner, columns, rank,
            HAS_BIAS=bias is not None, EVEN=inner % tile.inner == 0, UPCAST=interpreted(),
            BLOCK_M=tile.rows, BLOCK_P=tile.columns, BLOCK_K=tile.inner, BLOCK_R=min(tile.inner, power_of_two(rank, 16)), GROUP=8,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    return out
