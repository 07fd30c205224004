"""Causal attention within packed documents: `query [N, H, D]`, `key` and `value [N, KV, D]`, `cu_seqlens [documents + 1]`.

A document's query sees itself and the keys before it, at most `window` in all.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from llmctl_kernels.attention.backends import Backend, missing
from llmctl_kernels.cases.case import (
    TAIL,
    WINDOW,
    Case,
    Implementation,
    Large,
    Model,
    Outputs,
    Tensors,
    Unavailable,
    Work,
    document_lengths,
    last_rows,
    normal,
)

LIBRARIES: tuple[Backend, ...] = ("varlen_attn", "flash_attention_2", "flash_attention_3", "flash_attention_4")
BY_DOCUMENT: Backend = "per_document"
PUBLISHED_LENGTH = 16_384
"""Where FlashAttention-3's published rates are compared: one document, 16 heads of 128, causal."""


def call(
    backend: Backend, longest: int, window: int | None, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor
) -> Outputs:
    from llmctl_kernels.attention import packed_attention

    return (packed_attention(query, key, value, cu_seqlens, longest, window, query.shape[-1] ** -0.5, backend),)


def dense(longest: int, window: int | None, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor) -> Outputs:
    from llmctl_kernels.attention.reference import reference_attention

    if not len(query):
        return (query.clone(),)
    scale = query.shape[-1] ** -0.5
    return (reference_attention(query, key, value, cu_seqlens, cu_seqlens, longest, longest, window, scale),)


def library(backend: Backend, longest: int, window: int | None) -> Implementation:
    if reason := missing(backend, "cuda"):
        raise Unavailable(reason)
    return partial(call, backend, longest, window)


def visible_pairs(lengths: Sequence[int], window: int | None) -> int:
    """Pairs of a query and a key that it sees."""
    pairs = 0
    for length in lengths:
        seen = length if window is None else min(length, window)
        pairs += seen * (seen + 1) // 2 + (length - seen) * seen
    return pairs


def work(lengths: Sequence[int], heads: int, key_heads: int, head_size: int, window: int | None) -> Work:
    """Two products over the visible pairs forward and five backward, of which one is the scores again, as every kernel that
    keeps no [N, N] counts it (arXiv 2307.08691, section 4.1). Queries, keys, values and outputs move forward; backward reads
    these and the outputs' gradient and writes three."""
    product = 2 * heads * head_size * visible_pairs(lengths, window)
    queries, keys = sum(lengths) * heads * head_size, sum(lengths) * key_heads * head_size
    forward = 2 * (2 * queries + 2 * keys)
    return Work(forward, 2 * forward + 2 * (2 * queries + 2 * keys), 2 * product, 7 * product)


def case(lengths: Sequence[int], heads: int, key_heads: int, head_size: int, window: int | None = None, what: str = "") -> Case:
    tokens, longest = sum(lengths), max(lengths, default=0)

    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        ends = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
        sizes = {"query": heads, "key": key_heads, "value": key_heads}
        tensors = {name: normal((tokens, count, head_size), device, dtype, generator) for name, count in sizes.items()}
        return tensors | {"cu_seqlens": ends}

    seen = "full" if window is None else f"window {window}"
    documents = "one document" if len(lengths) == 1 else f"{len(lengths)} documents"
    return Case(
        kernel="packed_attention",
        description=what or f"[{tokens}, {heads}/{key_heads}, {head_size}] {documents}, {seen}",
        inputs=inputs,
        wants_gradient=("query", "key", "value"),
        fused=partial(call, "fused", longest, window),
        plain=partial(dense, longest, window),
        exact=partial(dense, longest, window),
        work=work(lengths, heads, key_heads, head_size, window),
        bound="compute",
        others={name: partial(library, name, longest, window) for name in (*LIBRARIES, BY_DOCUMENT)},
    )


def typical(small: bool) -> list[Case]:
    if small:
        return [case((7, 12), 2, 1, 16, window=5)]
    lengths = document_lengths(2048, median=300)
    return [case(lengths, 8, 2, 128), case(lengths, 8, 8, 64, window=256)]


def edges(small: bool, device_type: str) -> list[Case]:
    lengths, window = ((5, 1, 0, 9, 0), 4) if small else ((200, 1, 0, 333, 0, 64, 1, 0, 0), 100)
    sizes = (32, 80) if small else (32, 64, 80, 128, 256)
    plain_size = 32 if small else 64
    cases = [
        *(case(lengths, 4, 2, size, what=f"head size {size}, grouped, documents of 0 and 1") for size in sizes),
        case(lengths, 2, 2, plain_size, window=window, what="window"),
        case(lengths, 2, 1, plain_size, window=1, what="window of 1"),
        case(lengths, 6, 2, plain_size, window=10_000, what="window wider than a document"),
        case((), 2, 1, plain_size, what="no rows"),
    ]
    # a window or a scale that a library takes to mean something else shows here, on the machine that has the library
    others: list[Backend] = [name for name in LIBRARIES if missing(name, device_type) is None]
    probe = case(lengths, 4, 2, 64, window=window)
    longest = max(lengths)
    return cases + [replace(probe, description=f"{name}, window", fused=partial(call, name, longest, window)) for name in others]


def large() -> Large:
    heads, head_size, length = 32, 128, 1024
    documents = 2**31 // (heads * head_size * length)
    whole = case((*(length,) * documents, TAIL), heads, heads, head_size)
    cut = last_rows("query", "key", "value")

    def tail(inputs: Tensors) -> Tensors:
        ends = inputs["cu_seqlens"][-2:]
        return cut(inputs) | {"cu_seqlens": ends - ends[0]}

    memory = 14 * 2 * sum((documents * length, TAIL)) * heads * head_size
    return Large(whole, case((TAIL,), heads, heads, head_size), tail, ("query", "key", "value"), memory)


def published() -> Case:
    """The shape of FlashAttention-3's published rates (arXiv 2407.08608, figures 5 and 6)."""
    return case((PUBLISHED_LENGTH,), 16, 16, 128, what="16384 causal, 16 heads of 128")


def benchmarks(model: Model, tokens: int) -> list[Case]:
    layouts = [document_lengths(tokens)] if tokens <= 16_384 else [document_lengths(tokens), (tokens,)]
    return [case(lengths, model.heads, model.heads, model.head_size, window) for lengths in layouts for window in (WINDOW, None)]
