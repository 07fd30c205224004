"""Triton kernels of RMSNorm, with the residual stream's addition before or after it. A program takes whole rows."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels import runtime

TILE = 4096
"""Elements that a program holds at a time, of one long row or of several short ones: 8 KiB of bf16 from each tensor."""
LONGEST_ROW = 32768
ELEMENTS_PER_WARP = 512
"""16 a thread: two loads of 16 bytes in bf16; and the backward pass, which holds four tensors, stays below 128 registers."""
WARPS_PER_PROCESSOR = 16
"""Of the backward pass: two tiles in flight, 32 KiB of bf16. A multiprocessor of an H100 needs some 18 KiB to draw its share
of 3.35 TB/s at a latency of 0.7 microseconds."""
TRITON_TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}


@triton.jit
def forward_kernel(
    x,
    residual,
    weight,
    summed,
    out,
    inverse_rms,
    rows,
    columns,
    eps,
    offset,
    ADD_BEFORE: tl.constexpr,
    ADD_AFTER: tl.constexpr,
    CAST_FIRST: tl.constexpr,
    NORMED: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """x, residual, summed, out [rows, columns], weight [columns], inverse_rms [rows] fp32. `NORMED`: the type of the normed rows
    before they are added."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, BLOCK)
    there = (row < rows)[:, None] & (column < columns)[None, :]
    place = row[:, None] * columns + column[None, :]
    value = tl.load(x + place, mask=there, other=0.0).to(tl.float32)
    if ADD_BEFORE:
        value += tl.load(residual + place, mask=there, other=0.0).to(tl.float32)
        rounded = value.to(summed.dtype.element_ty)
        tl.store(summed + place, rounded, mask=there)
        value = rounded.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(value * value, axis=1) / columns + eps)
    tl.store(inverse_rms + row, inverse, mask=row < rows)
    value *= inverse[:, None]
    if CAST_FIRST:
        value = value.to(summed.dtype.element_ty).to(tl.float32)
    scale = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32) + offset
    value *= scale[None, :]
    if ADD_AFTER:
        value = value.to(NORMED).to(tl.float32) + tl.load(residual + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out + place, value.to(out.dtype.element_ty), mask=there)


@triton.jit
def backward_kernel(
    gradient,
    sum_gradient,
    x,
    weight,
    inverse_rms,
    x_gradient,
    partial,
    rows,
    columns,
    offset,
    SUMMED: tl.constexpr,
    OF_WEIGHT: tl.constexpr,
    CAST_FIRST: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """gradient, sum_gradient, x, x_gradient [rows, columns]; partial [programs, columns] fp32: each program's share of the
    weight's gradient. With n = x / rms(x) and g = gradient * weight, the gradient of x is (g - n * mean(g * n)) / rms(x)."""
    column = tl.arange(0, BLOCK)
    scale = tl.load(weight + column, mask=column < columns, other=0.0).to(tl.float32) + offset
    shares = tl.zeros([ROWS, BLOCK], dtype=tl.float32)
    for tile in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = tl.arange(0, ROWS).to(tl.int64) + tile * ROWS
        there = (row < rows)[:, None] & (column < columns)[None, :]
        place = row[:, None] * columns + column[None, :]
        inverse = tl.load(inverse_rms + row, mask=row < rows, other=0.0)[:, None]
        normed = tl.load(x + place, mask=there, other=0.0).to(tl.float32) * inverse
        of_out = tl.load(gradient + place, mask=there, other=0.0).to(tl.float32)
        of_normed = of_out * scale[None, :]
        mean = tl.sum(of_normed * normed, axis=1) / columns
        of_x = (of_normed - normed * mean[:, None]) * inverse
        if SUMMED:
            of_x += tl.load(sum_gradient + place, mask=there, other=0.0).to(tl.float32)
        tl.store(x_gradient + place, of_x.to(x_gradient.dtype.element_ty), mask=there)
        if OF_WEIGHT:
            if CAST_FIRST:
                normed = normed.to(x.dtype.element_ty).to(tl.float32)
            shares += of_out * normed
    if OF_WEIGHT:
        share = partial + tl.program_id(0).to(tl.int64) * columns + column
        tl.store(share, tl.sum(shares, axis=0), mask=column < columns)


def tile_of(columns: int) -> tuple[int, int, int]:
    """Rows and columns of a tile, powers of two, and warps for it.

    Raises:
        ValueError: a row is too long for a program's registers.
    """
    if columns > LONGEST_ROW:
        raise ValueError(f"RMSNorm over {columns} elements: at most {LONGEST_ROW} are supported")
    block = runtime.power_of_two(columns)
    rows = max(1, TILE // block)
    return rows, block, min(32, max(4, rows * block // ELEMENTS_PER_WARP))


def forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor,
    summed: Tensor | None,
    out: Tensor,
    inverse_rms: Tensor,
    eps: float,
    cast_first: bool,
    offset: float,
) -> None:
    """Fill `out`, `inverse_rms`, and `summed` where the residual stream is to be added before the norm. All are contiguous."""
    if not x.numel():
        return
    columns = x.shape[-1]
    rows = x.numel() // columns
    tile_rows, block, warps = tile_of(columns)
    normed = torch.promote_types(x.dtype, weight.dtype) if cast_first else x.dtype
    launch: Any = forward_kernel[(triton.cdiv(rows, tile_rows),)]
    launch(
        x,
        x if residual is None else residual,
        weight,
        x if summed is None else summed,
        out,
        inverse_rms,
        rows,
        columns,
        eps,
        offset,
        ADD_BEFORE=summed is not None,
        ADD_AFTER=residual is not None and summed is None,
        CAST_FIRST=cast_first,
        NORMED=TRITON_TYPES[normed],
        ROWS=tile_rows,
        BLOCK=block,
        num_warps=warps,
    )


def backward(
    gradient: Tensor,
    sum_gradient: Tensor | None,
    x: Tensor,
    weight: Tensor,
    inverse_rms: Tensor,
    x_gradient: Tensor,
    of_weight: bool,
    cast_first: bool,
    offset: float,
) -> Tensor:
    """Fill `x_gradient`, and give the weight's gradient in fp32, [columns], or nothing, [0]. All are contiguous."""
    columns = x.shape[-1]
    rows = x.numel() // columns
    tile_rows, block, warps = tile_of(columns)
    programs = min(triton.cdiv(rows, tile_rows), most_programs(x.device, warps))
    partial = weight.new_empty(programs if of_weight else 0, columns, dtype=torch.float32)
    if programs:
        launch: Any = backward_kernel[(programs,)]
        launch(
            gradient,
            gradient if sum_gradient is None else sum_gradient,
            x,
            weight,
            inverse_rms,
            x_gradient,
            partial,
            rows,
            columns,
            offset,
            SUMMED=sum_gradient is not None,
            OF_WEIGHT=of_weight,
            CAST_FIRST=cast_first,
            ROWS=tile_rows,
            BLOCK=block,
            num_warps=warps,
        )
    return partial.sum(0) if of_weight else partial.flatten()


def most_programs(device: torch.device, warps: int) -> int:
    """Programs that run at once: each goes through many tiles, and the weight's gradient has one share of each."""
    if device.type != "cuda":
        return 2
    return torch.cuda.get_device_properties(device).multi_processor_count * max(1, WARPS_PER_PROCESSOR // warps)
