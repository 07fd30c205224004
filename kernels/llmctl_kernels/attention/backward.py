"""Attention of packed documents, backward: FlashAttention-2 (Dao 2023, arXiv 2307.08691), one kernel for queries, one for keys.

Each gradient is summed by one program in one order, so that two runs give the same bits.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels.attention.blocks import key_gradient_blocks, query_gradient_blocks, shared_memory
from llmctl_kernels.attention.forward import LOG2_E, limited
from llmctl_kernels.attention.tiles import (
    WITH_MASK,
    WITHOUT_MASK,
    extent,
    load_tile,
    locate,
    product,
    rounded,
    seeing_queries,
    seen_keys,
    store_tile,
    visible,
)
from llmctl_kernels.runtime import interpreted, power_of_two, with_dense_rows


@triton.jit
def _gather_keys(
    query_gradient, queries, gradients, normalizer, mean, positions, key, value, start, stop, key_length, key_stride,
    value_stride, window, scale, D: tl.constexpr, BLOCK_D: tl.constexpr, KEYS: tl.constexpr, WINDOWED: tl.constexpr,
    MASKED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Adds what the keys from `start` to `stop` contribute to the gradient of a block of queries."""
    for first in range(start, stop, KEYS):
        keys = load_tile(key, first, key_length, key_stride, KEYS, D, BLOCK_D, MASKED)
        values = load_tile(value, first, key_length, value_stride, KEYS, D, BLOCK_D, MASKED)
        scores = product(queries, tl.trans(keys), INTERPRETED)
        if MASKED:
            columns = first + tl.arange(0, KEYS)
            scores = tl.where(visible(positions[:, None], columns[None, :], window, WINDOWED), scores, float("-inf"))
        weights = tl.exp2(scores * scale - normalizer[:, None])
        score_gradient = weights * (product(gradients, tl.trans(values), INTERPRETED) - mean[:, None])
        query_gradient += product(rounded(score_gradient, keys.dtype, INTERPRETED), keys, INTERPRETED)
    return query_gradient


@triton.jit(do_not_specialize=["rows", "documents", "window"])
def query_gradient_kernel(
    gradient, query, key, value, output, log_sum_exp, means, query_gradient, cu_seqlens_q, cu_seqlens_k, query_stride,
    query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, output_stride, rows, documents, window,
    scale, softmax_scale, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
    WINDOWED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """One block of queries of one head. Also writes `means` `[H, N]`, rowsum(gradient * output), for the other kernel.

    A kernel of its own for these would read the gradient once more. `scale` includes log2(e), `softmax_scale` does not.
    """
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
    offset = start.to(tl.int64) * output_stride + head * D

    gradients = load_tile(gradient + offset, first, length, output_stride, ROWS, D, BLOCK_D, WITH_MASK)
    outputs = load_tile(output + offset, first, length, output_stride, ROWS, D, BLOCK_D, WITH_MASK)
    mean = tl.sum(gradients.to(tl.float32) * outputs.to(tl.float32), 1)
    numbers = first + tl.arange(0, ROWS)
    statistics = head * rows + start + numbers
    tl.store(means + statistics, mean, mask=numbers < length)
    normalizer = tl.load(log_sum_exp + statistics, mask=numbers < length, other=float("inf"))
    queries = load_tile(query, first, length, query_stride, ROWS, D, BLOCK_D, WITH_MASK)
    positions = shift + numbers
    last = shift + tl.minimum(first + ROWS, length) - 1
    begin, full, ragged, end = seen_keys(shift + first, last, key_length, window, KEYS, WINDOWED)
    total = tl.zeros([ROWS, BLOCK_D], tl.float32)
    if WINDOWED:
        total = _gather_keys(
            total, queries, gradients, normalizer, mean, positions, key, value, begin, full, key_length, key_stride,
            value_stride, window, scale, D, BLOCK_D, KEYS, WINDOWED, WITH_MASK, INTERPRETED,
        )  # fmt: skip
    total = _gather_keys(
        total, queries, gradients, normalizer, mean, positions, key, value, full, ragged, key_length, key_stride,
        value_stride, window, scale, D, BLOCK_D, KEYS, WINDOWED, WITHOUT_MASK, INTERPRETED,
    )  # fmt: skip
    total = _gather_keys(
        total, queries, gradients, normalizer, mean, positions, key, value, ragged, end, key_length, key_stride,
        value_stride, window, scale, D, BLOCK_D, KEYS, WINDOWED, WITH_MASK, INTERPRETED,
    )  # fmt: skip
    store_tile(query_gradient + offset, total * softmax_scale, first, length, output_stride, ROWS, D, BLOCK_D, INTERPRETED)


@triton.jit
def _gather_queries(
    key_gradient, value_gradient, keys, values, numbers, query, gradient, log_sum_exp, means, start, stop, shift, length,
    query_stride, output_stride, window, scale, D: tl.constexpr, BLOCK_D: tl.constexpr, ROWS: tl.constexpr,
    WINDOWED: tl.constexpr, MASKED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """Adds what the queries from `start` to `stop` contribute to the gradients of a block of keys.

    Scores stand transposed, keys by queries: the weights go into the next product as they lie in registers.
    """
    for first in range(start, stop, ROWS):
        rows = first + tl.arange(0, ROWS)
        queries = load_tile(query, first, length, query_stride, ROWS, D, BLOCK_D, MASKED)
        gradients = load_tile(gradient, first, length, output_stride, ROWS, D, BLOCK_D, MASKED)
        normalizer = tl.load(log_sum_exp + rows, mask=rows < length, other=float("inf"))
        mean = tl.load(means + rows, mask=rows < length, other=0.0)
        scores = product(keys, tl.trans(queries), INTERPRETED)
        if MASKED:
            scores = tl.where(visible((shift + rows)[None, :], numbers[:, None], window, WINDOWED), scores, float("-inf"))
        weights = tl.exp2(scores * scale - normalizer[None, :])
        value_gradient += product(rounded(weights, gradients.dtype, INTERPRETED), gradients, INTERPRETED)
        score_gradient = weights * (product(values, tl.trans(gradients), INTERPRETED) - mean[None, :])
        key_gradient += product(rounded(score_gradient, queries.dtype, INTERPRETED), queries, INTERPRETED)
    return key_gradient, value_gradient


@triton.jit(do_not_specialize=["rows", "key_rows", "documents", "window"])
def key_gradient_kernel(
    gradient, query, key, value, log_sum_exp, means, key_gradient, value_gradient, cu_seqlens_q, cu_seqlens_k, query_stride,
    query_head_stride, key_stride, key_head_stride, value_stride, value_head_stride, output_stride, gradient_stride, rows,
    key_rows, documents, window, scale, softmax_scale, GROUP: tl.constexpr, D: tl.constexpr, BLOCK_D: tl.constexpr,
    ROWS: tl.constexpr, KEYS: tl.constexpr, WINDOWED: tl.constexpr, INTERPRETED: tl.constexpr,
):  # fmt: skip
    """One block of keys of one head of keys, and the queries of all heads that go with it."""
    slot = tl.program_id(0)  # the starts of documents are seen by most queries, and stand first
    key_head = tl.program_id(1).to(tl.int64)
    document, key_start, key_length, first = locate(cu_seqlens_k, slot, documents, key_rows, KEYS)
    if first >= key_length:
        return
    start, length = extent(cu_seqlens_q, document, documents)
    shift = key_length - length
    key += key_head * key_head_stride + key_start.to(tl.int64) * key_stride
    value += key_head * value_head_stride + key_start.to(tl.int64) * value_stride

    keys = load_tile(key, first, key_length, key_stride, KEYS, D, BLOCK_D, WITH_MASK)
    values = load_tile(value, first, key_length, value_stride, KEYS, D, BLOCK_D, WITH_MASK)
    numbers = first + tl.arange(0, KEYS)
    last = tl.minimum(first + KEYS, key_length) - 1
    begin, full, ragged, end = seeing_queries(first, last, shift, length, window, ROWS, WINDOWED)
    key_total = tl.zeros([KEYS, BLOCK_D], tl.float32)
    value_total = tl.zeros([KEYS, BLOCK_D], tl.float32)
    for member in range(GROUP):
        head = key_head * GROUP + member
        of_query = query + head * query_head_stride + start.to(tl.int64) * query_stride
        of_gradient = gradient + head * D + start.to(tl.int64) * output_stride
        of_normalizer = log_sum_exp + head * rows + start
        of_mean = means + head * rows + start
        key_total, value_total = _gather_queries(
            key_total, value_total, keys, values, numbers, of_query, of_gradient, of_normalizer, of_mean, begin, full, shift,
            length, query_stride, output_stride, window, scale, D, BLOCK_D, ROWS, WINDOWED, WITH_MASK, INTERPRETED,
        )  # fmt: skip
        key_total, value_total = _gather_queries(
            key_total, value_total, keys, values, numbers, of_query, of_gradient, of_normalizer, of_mean, full, ragged, shift,
            length, query_stride, output_stride, window, scale, D, BLOCK_D, ROWS, WINDOWED, WITHOUT_MASK, INTERPRETED,
        )  # fmt: skip
        key_total, value_total = _gather_queries(
            key_total, value_total, keys, values, numbers, of_query, of_gradient, of_normalizer, of_mean, ragged, end, shift,
            length, query_stride, output_stride, window, scale, D, BLOCK_D, ROWS, WINDOWED, WITH_MASK, INTERPRETED,
        )  # fmt: skip
    offset = key_start.to(tl.int64) * gradient_stride + key_head * D
    store_tile(
        key_gradient + offset, key_total * softmax_scale, first, key_length, gradient_stride, KEYS, D, BLOCK_D, INTERPRETED
    )
    store_tile(value_gradient + offset, value_total, first, key_length, gradient_stride, KEYS, D, BLOCK_D, INTERPRETED)


def attention_backward(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sum_exp: Tensor, cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor, window: int | None, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradients of `query` `[N, H, D]`, `key` and `value` `[M, KV, D]`."""
    rows, heads, size = query.shape
    key_rows, key_heads, _ = key.shape
    documents = cu_seqlens_q.shape[0] - 1
    query, key, value = (with_dense_rows(tensor) for tensor in (query, key, value))
    gradient = gradient.contiguous()
    query_gradient = query.new_empty(query.shape)
    key_gradient, value_gradient = key.new_empty(key.shape), value.new_empty(value.shape)
    means = log_sum_exp.new_empty(log_sum_exp.shape)
    sizes = {"GROUP": heads // key_heads, "D": size, "BLOCK_D": power_of_two(size, 16)}
    flags = {"WINDOWED": window is not None, "INTERPRETED": interpreted()}
    strides = (*query.stride()[:2], *key.stride()[:2], *value.stride()[:2], output.stride(0))
    numbers = (documents, limited(window, key), scale * LOG2_E, scale)
    available = shared_memory(query.device)

    blocks = query_gradient_blocks(size, query.dtype, available)
    launch: Any = query_gradient_kernel[(rows // blocks.rows + documents + 1, heads)]
    launch(
        gradient, query, key, value, output, log_sum_exp, means, query_gradient, cu_seqlens_q, cu_seqlens_k, *strides, rows,
        *numbers, **sizes, **flags, ROWS=blocks.rows, KEYS=blocks.keys, num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    blocks = key_gradient_blocks(size, query.dtype, available)
    launch = key_gradient_kernel[(key_rows // blocks.keys + documents + 1, key_heads)]
    launch(
        gradient, query, key, value, log_sum_exp, means, key_gradient, value_gradient, cu_seqlens_q, cu_seqlens_k, *strides,
        key_gradient.stride(0), rows, key_rows, *numbers, **sizes, **flags, ROWS=blocks.rows, KEYS=blocks.keys,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return query_gradient, key_gradient, value_gradient
