"""Attention over packed documents, behind `transformers`' attention interface, so that any of its models can use it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from llmctl.errors import UserError
from llmctl_kernels.attention import BACKENDS, Backend, best, per_document, varlen

if TYPE_CHECKING:
    from llmctl.model.sequence import SequenceGroup

NAME = "llmctl_packed"
"""With the name of a backend behind it, of the attention functions that `transformers` is told of."""


def takes_varlen(query: Tensor, backend: Backend) -> bool:
    """Whether the backend takes the boundaries of documents, and such numbers: the libraries take half precision alone."""
    return backend == "fused" or (backend != "per_document" and query.is_cuda and query.element_size() == 2)


@torch.compiler.disable()  # document lengths are Python numbers, new in every batch: compiled, each would be compiled anew
def by_document(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], window: int | None, scale: float) -> Tensor:
    """`per_document`, outside of compiled graphs: `[1, H, N, D]` -> `[1, N, H, D]`."""
    return per_document(query, key, value, lengths, window, scale).transpose(1, 2)


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    cu_seqlens: Tensor,
    max_length: int,
    window: int | None,
    scale: float,
    backend: Backend,
) -> Tensor:
    """Causal attention inside documents: `[1, H, N, D]`, keys and values of as many heads or fewer -> `[1, N, H, D]`. A kernel
    that takes boundaries is part of a compiled graph."""
    if not takes_varlen(query, backend):
        return by_document(query, key, value, lengths, window, scale)
    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return varlen(query, key, value, (cu_seqlens, cu_seqlens), (max_length, max_length), window, scale, backend)[None]


def attention_for_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    lengths: tuple[int, ...] = (),
    cu_seqlens: Tensor | None = None,
    max_length: int | None = None,
    sequence: "SequenceGroup | None" = None,
    backend: Backend = "per_document",
    **others: Any,
) -> tuple[Tensor, None]:
    """The signature of `transformers`' attention functions; boundaries arrive as keyword arguments of the model, and so do the
    ranks that have the rest of the tokens, if there are such."""
    require_plain_softmax(others)
    # Of `lengths` no question is asked here: compiled graphs would be made anew for every number of documents.
    if cu_seqlens is None or max_length is None:
        raise ValueError("packed attention needs lengths, cu_seqlens and max_length; call the model through llmctl.model.loss")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not query.dtype == key.dtype == value.dtype:  # autocast leaves rotated queries and keys in fp32 in some models
        query, key = query.to(value.dtype), key.to(value.dtype)
    attention = packed_attention if sequence is None else sequence.attention
    return attention(query, key, value, lengths, cu_seqlens, max_length, sliding_window, scale, backend), None


def require_plain_softmax(arguments: dict[str, Any]) -> None:
    """Raises:
    UserError: the model asks its attention for capped scores (Gemma 2) or attention sinks (gpt-oss).
    """
    asked = [name for name in ("softcap", "s_aux") if arguments.get(name) is not None]
    if asked:
        raise UserError(f"this model's attention has `{asked[0]}`, which is not supported: scores would be silently wrong")


def use_packed_attention(model: Any, backend: Backend | None = None) -> Backend:
    """Let `model` attend inside packed documents from now on; returns what computes it. Left out, `backend` is the best for where
    the model is."""
    from transformers import AttentionInterface

    base = model.get_base_model() if hasattr(model, "peft_config") else model
    backend = backend or best(base.device.type, head_size_of(base.config.get_text_config()))
    # No mask is registered beside them: `transformers` then neither makes one nor looks for documents, for which it waits.
    for known in BACKENDS:
        AttentionInterface.register(f"{NAME}_{known}", partial(attention_for_transformers, backend=known))
    base.set_attn_implementation(f"{NAME}_{backend}")
    return backend


def head_size_of(config: Any) -> int:
    """Of a `transformers` configuration."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Another of the registered attention functions inside the block; `sdpa`, `transformers`' own, keeps a cache."""
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    before = base.config._attn_implementation
    base.set_attn_implementation(name)
    try:
        yield
    finally:
        base.set_attn_implementation(before)
