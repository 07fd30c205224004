"""Attention of packed documents, forward: FlashAttention-2 (Dao 2023, arXiv 2307.08691)."""

from math import log2
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels.attention.blocks import forward_blocks, shared_memory
from llmctl_kernels.attention.tiles import (
    WITH_MASK,
    WITHOUT_MASK,
    extent,
    load_tile,
    locate,
    product,
    rounded,
    seen_keys,
    store_tile,
    visible,
)
from llmctl_kernels.runtime import interpreted, power_of_two, with_dense_rows

LOG2_E = log2(2.718281828459045)


@triton.jit
def _attend(
    weighted, peak, total, queries, positions, key, value, start, stop, key_length, key_stride, value_stride, window, scale,
    D: tl.constexpr, BLOCK_D: tl.constexpr, KEYS: tl.constexpr, WINDOWED: tl.constexpr, MASKED: tl.constexpr,
    INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Takes the keys from `start` to `stop` into the weighted sum of values, the greatest score and the sum of weights."""
    for first in range(start, stop, KEYS):
        keys = load_tile(key, first, key_length, key_stride, KEYS, D, BLOCK_D, MASKED)
        scores = product(queries, tl.trans(keys), INTERPRETED)
        if MASKED:
            columns = first + tl.arange(0, KEYS)
            scores = tl.where(visible(positions[:, None], columns[None, :], window, WINDOWED), scores, float("-inf"))
        new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - new_peak[:, None])
        correction = tl.exp2(peak - new_peak)
        total = total * correction + tl.sum(weights, 1)
        values = load_tile(value, first, key_length, value_stride, KEYS, D, BLOCK_D, MASKED)
        weighted = weighted * correction[:, None] + product(rounded(weights, values.dtype, INTERPRETED), values, INTERPRETED)
        peak = new_peak
    return weighted, peak, total


@triton.jit(do_not_specialize=["rows", "documents", "window"])
def forward_kernel(
    query, key, value, output, log_sum_exp, cu_seqlens_q, cu_seqlens_k, query_stride, query_head_stride, key_stride,
    key_head_stride, value_stride, value_head_stride, output_stride, rows, documents, window, scale,
    GROUP: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    WINDOWED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head. `scale` includes log2(e): powers of 2 are what a GPU has an instruction for."""
    # the ends of documents see most keys: first, so that no long program is left alone at the end
    slot = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1).to(tl.int64)
    document, start, length, first = locate(cu_seqlens_q, slot, documents, rows, ROWS)
    if first >= length:
        return
    key_start, key_length = extent(cu_seqlens_k, document, documents)
    shift = key_length - length
    query += head * query_head_stride + start.to(tl.int64) * query_stride
    key += head // GROUP * key_head_stride + key_start.to(tl.int64) * key_stride
    value += head // GROUP * value_head_stride + key_start.to(tl.int64) * value_stride

    queries = load_tile(query, first, length, query_stride, ROWS, D, BLOCK_D, WITH_MASK)
    positions = shift + first + tl.arange(0, ROWS)
    last = shift + tl.minimum(first + ROWS, length) - 1
    begin, full, ragged, end = seen_keys(shift + first, last, key_length, window, KEYS, WINDOWED)
    weighted = tl.zeros([ROWS, BLOCK_D], tl.float32)
    # finite, so that a query that sees none of its first keys subtracts no infinities: they have no difference
    peak = tl.full([ROWS], -1e30, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    if WINDOWED:
        weighted, peak, total = _attend(
            weighted, peak, total, queries, positions, key, value, begin, full, key_length, key_stride, value_stride, window,
            scale, D, BLOCK_D, KEYS, WINDOWED, WITH_MASK, INTERPRETED,
        )  # fmt: skip
    weighted, peak, total = _attend(
        weighted, peak, total, queries, positions, key, value, full, ragged, key_length, key_stride, value_stride, window,
        scale, D, BLOCK_D, KEYS, WINDOWED, WITHOUT_MASK, INTERPRETED,
    )  # fmt: skip
    weighted, peak, total = _attend(
        weighted, peak, total, queries, positions, key, value, ragged, end, key_length, key_stride, value_stride, window,
        scale, D, BLOCK_D, KEYS, WINDOWED, WITH_MASK, INTERPRETED,
    )  # fmt: skip

    has_keys = total > 0
    total = tl.where(has_keys, total, 1.0)
    output += start.to(tl.int64) * output_stride + head * D
    store_tile(output, weighted / total[:, None], first, length, output_stride, ROWS, D, BLOCK_D, INTERPRETED)
    # without a key the weights are 2 ** (score - inf) = 0 in the backward pass
    normalizer = tl.where(has_keys, peak + tl.log2(total), float("inf"))
    numbers = first + tl.arange(0, ROWS)
    tl.store(log_sum_exp + head * rows + start + numbers, normalizer, mask=numbers < length)


def attention_forward(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The output `[N, H, D]` and the log-sum-exp of the scores to base 2, `[H, N]` in float32."""
    rows, heads, size = query.shape
    documents = cu_seqlens_q.shape[0] - 1
    query, key, value = (with_dense_rows(tensor) for tensor in (query, key, value))
    output = query.new_empty(query.shape)
    log_sum_exp = query.new_empty((heads, rows), dtype=torch.float32)
    blocks = forward_blocks(size, query.dtype, shared_memory(query.device))
    launch: Any = forward_kernel[(rows // blocks.rows + documents + 1, heads)]
    launch(
        query, key, value, output, log_sum_exp, cu_seqlens_q, cu_seqlens_k, query.stride(0), query.stride(1), key.stride(0),
        key.stride(1), value.stride(0), value.stride(1), output.stride(0), rows, documents, limited(window, key), scale * LOG2_E,
        GROUP=heads // key.shape[1], D=size, BLOCK_D=power_of_two(size, 16), ROWS=blocks.rows, KEYS=blocks.keys,
        WINDOWED=window is not None, INTERPRETED=interpreted(), num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return output, log_sum_exp


def limited(window: int | None, key: Tensor) -> int:
    """A window that sees no less, and to which a position can be added in 32 bits; 0 without one."""
    return 0 if window is None else min(window, max(1, key.shape[0]))
