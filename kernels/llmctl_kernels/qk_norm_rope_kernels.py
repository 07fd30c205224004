"""Triton kernels of `qk_norm_rope`: the norm and rotation of a token's query and key in one pass over memory.

A program takes one token's whole query or whole key as a tile [heads, head size]. Rotation needs each number's partner half a
rotation away: it is loaded a second time, which the L1 cache answers, instead of being moved between threads.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels.runtime import power_of_two

NO_NORM, HEAD_NORM, WHOLE_NORM = 0, 1, 2


@triton.jit
def _tile(HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, ROTATED: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK: tl.constexpr):
    """Heads [BLOCK_HEADS, 1], places and their partners [1, BLOCK], and what of the tile is there and has a partner."""
    heads = tl.arange(0, BLOCK_HEADS)[:, None]
    places = tl.arange(0, BLOCK)[None, :]
    partners = tl.where(places < ROTATED // 2, places + ROTATED // 2, places - ROTATED // 2)
    within = (heads < HEADS) & (places < HEAD_SIZE)
    return heads, places, partners, within, within & (places < ROTATED)


@triton.jit
def _mean(values, HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, NORM: tl.constexpr):
    """Of each head, [BLOCK_HEADS, 1], or of all, [1, 1]; what is masked out has to be 0."""
    sums = tl.sum(values, axis=1, keep_dims=True)
    if NORM == 2:
        sums = tl.sum(sums, axis=0, keep_dims=True) / HEADS
    return sums / HEAD_SIZE


@triton.jit
def _weigh(normed, weight, kind: tl.constexpr, CAST_FIRST: tl.constexpr):
    """Norm's product with its weight, with the roundings of the model: to `kind` before the product or after alone."""
    if CAST_FIRST:
        normed = normed.to(kind).to(tl.float32)
    return (normed * weight).to(kind).to(tl.float32)


@triton.jit
def _turn(
    source, row_stride, weight, cos, cos_stride, sin, sin_stride, out, eps, HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr,
    ROTATED: tl.constexpr, BLOCK_HEADS: tl.constexpr, BLOCK: tl.constexpr, NORM: tl.constexpr, CAST_FIRST: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    heads, places, partners, within, turned = _tile(HEADS, HEAD_SIZE, ROTATED, BLOCK_HEADS, BLOCK)
    kind = source.dtype.element_ty
    source += row * row_stride + heads * HEAD_SIZE
    values = tl.load(source + places, mask=within, other=0.0).to(tl.float32)
    others = tl.load(source + partners, mask=turned, other=0.0).to(tl.float32)
    if NORM != 0:
        inverse = tl.rsqrt(_mean(values * values, HEADS, HEAD_SIZE, NORM) + eps)
        weight += heads * (HEAD_SIZE if NORM == 2 else 0)
        scales = tl.load(weight + places, mask=within, other=0.0).to(tl.float32)
        values = _weigh(values * inverse, scales, kind, CAST_FIRST)
        scales = tl.load(weight + partners, mask=turned, other=0.0).to(tl.float32)
        others = _weigh(others * inverse, scales, kind, CAST_FIRST)
    rotated = places < ROTATED
    cosine = tl.load(cos + row * cos_stride + places, mask=rotated, other=1.0).to(tl.float32)
    sine = tl.load(sin + row * sin_stride + places, mask=rotated, other=0.0).to(tl.float32)
    result = values * cosine + tl.where(places < ROTATED // 2, -others, others) * sine
    out += row * HEADS * HEAD_SIZE + heads * HEAD_SIZE + places
    tl.store(out, result.to(out.dtype.element_ty), mask=within)


@triton.jit
def forward_kernel(
    query, query_stride, query_weight, query_out, key, key_stride, key_weight, key_out, cos, cos_stride, sin, sin_stride, eps,
    QUERY_HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, ROTATED: tl.constexpr,
    BLOCK_QUERY: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK: tl.constexpr, QUERY_NORM: tl.constexpr, KEY_NORM: tl.constexpr,
    CAST_FIRST: tl.constexpr,
):  # fmt: skip
    """Grid (rows, 2): a program for a row of the query, and one for a row of the key."""
    if tl.program_id(1) == 0:
        _turn(
            query, query_stride, query_weight, cos, cos_stride, sin, sin_stride, query_out, eps,
            QUERY_HEADS, HEAD_SIZE, ROTATED, BLOCK_QUERY, BLOCK, QUERY_NORM, CAST_FIRST,
        )  # fmt: skip
    else:
        _turn(
            key, key_stride, key_weight, cos, cos_stride, sin, sin_stride, key_out, eps,
            KEY_HEADS, HEAD_SIZE, ROTATED, BLOCK_KEY, BLOCK, KEY_NORM, CAST_FIRST,
        )  # fmt: skip


@triton.jit
def _turn_back(
    gradient, gradient_row_stride, gradient_head_stride, source, row_stride, weight, cos, cos_stride, sin, sin_stride, out,
    partial, rows, eps, HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, ROTATED: tl.constexpr, BLOCK_HEADS: tl.constexpr,
    BLOCK: tl.constexpr, NORM: tl.constexpr, OF_WEIGHT: tl.constexpr,
):  # fmt: skip
    heads, places, partners, within, turned = _tile(HEADS, HEAD_SIZE, ROTATED, BLOCK_HEADS, BLOCK)
    rotated = places < ROTATED
    spots = heads * (HEAD_SIZE if NORM == 2 else 0) + places
    of_weight = tl.zeros([BLOCK_HEADS, BLOCK], tl.float32)
    if NORM != 0:
        scales = tl.load(weight + spots, mask=within, other=0.0).to(tl.float32)
    for index in range(tl.program_id(0), rows, tl.num_programs(0)):
        row = tl.cast(index, tl.int64)
        incoming = gradient + row * gradient_row_stride + heads.to(tl.int64) * gradient_head_stride
        own = tl.load(incoming + places, mask=within, other=0.0).to(tl.float32)
        others = tl.load(incoming + partners, mask=turned, other=0.0).to(tl.float32)
        cosine = tl.load(cos + row * cos_stride + places, mask=rotated, other=1.0).to(tl.float32)
        # A number goes into its own place by its cosine, and into its partner's by the sine that stands there.
        sine = tl.load(sin + row * sin_stride + partners, mask=rotated, other=0.0).to(tl.float32)
        result = own * cosine + tl.where(places < ROTATED // 2, others, -others) * sine
        if NORM != 0:
            values = tl.load(source + row * row_stride + heads * HEAD_SIZE + places, mask=within, other=0.0).to(tl.float32)
            inverse = tl.rsqrt(_mean(values * values, HEADS, HEAD_SIZE, NORM) + eps)
            normed = tl.where(within, values * inverse, 0.0)  # with an eps of 0, rows beyond the heads are 0 * infinity
            if OF_WEIGHT:
                of_weight += result * normed
            result *= scales
            mean = _mean(result * normed, HEADS, HEAD_SIZE, NORM)
            result = (result - normed * mean) * inverse
        target = out + row * HEADS * HEAD_SIZE + heads * HEAD_SIZE + places
        tl.store(target, result.to(out.dtype.element_ty), mask=within)
    if OF_WEIGHT:
        if NORM == 2:
            target = partial + tl.program_id(0).to(tl.int64) * HEADS * HEAD_SIZE + spots
            tl.store(target, of_weight, mask=within)
        else:
            columns = tl.arange(0, BLOCK)
            target = partial + tl.program_id(0).to(tl.int64) * HEAD_SIZE + columns
            tl.store(target, tl.sum(of_weight, axis=0), mask=columns < HEAD_SIZE)


@triton.jit
def backward_kernel(
    query_gradient, query_gradient_row_stride, query_gradient_head_stride, query, query_stride, query_weight, query_out,
    query_partial, key_gradient, key_gradient_row_stride, key_gradient_head_stride, key, key_stride, key_weight, key_out,
    key_partial, cos, cos_stride, sin, sin_stride, rows, eps,
    QUERY_HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, HEAD_SIZE: tl.constexpr, ROTATED: tl.constexpr,
    BLOCK_QUERY: tl.constexpr, BLOCK_KEY: tl.constexpr, BLOCK: tl.constexpr, QUERY_NORM: tl.constexpr, KEY_NORM: tl.constexpr,
    OF_QUERY_WEIGHT: tl.constexpr, OF_KEY_WEIGHT: tl.constexpr,
):  # fmt: skip
    """Grid (programs, 2): as the forward kernel, and a program takes every so manieth row."""
    if tl.program_id(1) == 0:
        _turn_back(
            query_gradient, query_gradient_row_stride, query_gradient_head_stride, query, query_stride, query_weight,
            cos, cos_stride, sin, sin_stride, query_out, query_partial, rows, eps,
            QUERY_HEADS, HEAD_SIZE, ROTATED, BLOCK_QUERY, BLOCK, QUERY_NORM, OF_QUERY_WEIGHT,
        )  # fmt: skip
    else:
        _turn_back(
            key_gradient, key_gradient_row_stride, key_gradient_head_stride, key, key_stride, key_weight,
            cos, cos_stride, sin, sin_stride, key_out, key_partial, rows, eps,
            KEY_HEADS, HEAD_SIZE, ROTATED, BLOCK_KEY, BLOCK, KEY_NORM, OF_KEY_WEIGHT,
        )  # fmt: skip


def _norm(weight: Tensor | None, head_size: int) -> int:
    if weight is None:
        return NO_NORM
    return HEAD_NORM if weight.numel() == head_size else WHOLE_NORM


def _sizes(query_heads: int, key_heads: int, head_size: int, cos: Tensor) -> dict[str, Any]:
    """Compile-time sizes; and warps such that a thread holds 16 numbers of a tile, which leaves registers for five tiles."""
    block, block_query, block_key = power_of_two(head_size), power_of_two(query_heads), power_of_two(key_heads)
    return {
        "QUERY_HEADS": query_heads,
        "KEY_HEADS": key_heads,
        "HEAD_SIZE": head_size,
        "ROTATED": cos.shape[-1],
        "BLOCK_QUERY": block_query,
        "BLOCK_KEY": block_key,
        "BLOCK": block,
        "num_warps": min(16, max(1, max(block_query, block_key) * block // 512)),
    }


def launch_forward(
    query: Tensor, key: Tensor, query_weight: Tensor | None, key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float,
    head_size: int, cast_first: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Rows [N, H * D] whose last dimension is dense -> [N, H, D]."""
    query_out, key_out = (x.new_empty(len(x), x.shape[1] // head_size, head_size) for x in (query, key))
    launch: Any = forward_kernel
    if len(query):
        launch[(len(query), 2)](
            query, query.stride(0), query if query_weight is None else query_weight, query_out,
            key, key.stride(0), key if key_weight is None else key_weight, key_out,
            cos, cos.stride(0), sin, sin.stride(0), eps,
            QUERY_NORM=_norm(query_weight, head_size), KEY_NORM=_norm(key_weight, head_size), CAST_FIRST=cast_first,
            **_sizes(query_out.shape[1], key_out.shape[1], head_size, cos),
        )  # fmt: skip
    return query_out, key_out


def _programs(rows: int, device: torch.device) -> int:
    """Programs among which rows are shared out where each sums up a gradient of weights: twice two waves fill a GPU."""
    most = 2 * torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    return min(rows, most)


def launch_backward(
    query_gradient: Tensor, key_gradient: Tensor, query: Tensor, key: Tensor, query_weight: Tensor | None,
    key_weight: Tensor | None, cos: Tensor, sin: Tensor, eps: float, head_size: int, of_query_weight: bool, of_key_weight: bool,
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:  # fmt: skip
    """Gradients [N, H, D] whose last dimension is dense -> those of the rows, [N, H * D], and of the weights where asked for."""
    rows = len(query)
    query_out, key_out = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (query, key))
    programs = _programs(rows, query.device) if of_query_weight or of_key_weight else rows
    query_partial, key_partial = (
        weight.new_empty(programs, weight.numel(), dtype=torch.float32) if weight is not None and asked else None
        for weight, asked in ((query_weight, of_query_weight), (key_weight, of_key_weight))
    )
    launch: Any = backward_kernel
    if rows:
        launch[(programs, 2)](
            query_gradient, query_gradient.stride(0), query_gradient.stride(1), query, query.stride(0),
            query if query_weight is None else query_weight, query_out, query_out if query_partial is None else query_partial,
            key_gradient, key_gradient.stride(0), key_gradient.stride(1), key, key.stride(0),
            key if key_weight is None else key_weight, key_out, key_out if key_partial is None else key_partial,
            cos, cos.stride(0), sin, sin.stride(0), rows, eps,
            QUERY_NORM=_norm(query_weight, head_size), KEY_NORM=_norm(key_weight, head_size),
            OF_QUERY_WEIGHT=query_partial is not None, OF_KEY_WEIGHT=key_partial is not None,
            **_sizes(query_gradient.shape[1], key_gradient.shape[1], head_size, cos),
        )  # fmt: skip
    return query_out, key_out, _summed(query_partial, query_weight), _summed(key_partial, key_weight)


def _summed(partial: Tensor | None, weight: Tensor | None) -> Tensor | None:
    return None if partial is None or weight is None else partial.sum(0).to(weight.dtype)
