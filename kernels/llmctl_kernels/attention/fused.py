"""The operators of attention over packed documents, and their gradients."""

from typing import Any

import torch
from torch import Tensor


@torch.library.custom_op("llmctl_kernels::packed_attention", mutates_args=())
def packed_attention(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    """The output `[N, H, D]` and the log-sum-exp of the scores to base 2, `[H, N]` in float32."""
    from llmctl_kernels.attention.forward import attention_forward

    return attention_forward(query, key, value, cu_seqlens_q, cu_seqlens_k, window, scale)


@packed_attention.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, cu_seqlens_q: Tensor, cu_seqlens_k: Tensor, window: int | None, scale: float
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), query.new_empty((query.shape[1], query.shape[0]), dtype=torch.float32)


@torch.library.custom_op("llmctl_kernels::packed_attention_backward", mutates_args=())
def packed_attention_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    output: Tensor,
    log_sum_exp: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `query`, `key` and `value` from that of the output, all in the shapes of these."""
    from llmctl_kernels.attention.backward import attention_backward

    return attention_backward(gradient, query, key, value, output, log_sum_exp, cu_seqlens_q, cu_seqlens_k, window, scale)


@packed_attention_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, output: Tensor, log_sum_exp: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    query, key, value, cu_seqlens_q, cu_seqlens_k, ctx.window, ctx.scale = inputs
    ctx.set_materialize_grads(False)  # nothing asks for that of the log-partitions
    ctx.save_for_backward(query, key, value, *output, cu_seqlens_q, cu_seqlens_k)


def _gradients(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 7
    gradients = packed_attention_backward(gradient, *ctx.saved_tensors, ctx.window, ctx.scale)
    return *gradients, None, None, None, None


packed_attention.register_autograd(_gradients, setup_context=_keep)


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    window: int | None,
    scale: float,
) -> Tensor:
    """Causal attention inside each document, `[N, H, D]`, of queries `[N, H, D]` and keys and values `[M, KV, D]`.

    `cu_seqlens_q` and `cu_seqlens_k` `[S + 1]`, in int32, start at 0 and say where documents start and end; documents may be
    empty. A document's queries are its last tokens where these are fewer than its keys, and never more. With `window` a query
    sees itself and the `window - 1` keys before it. H is a multiple of KV: query head h goes with key head h // (H / KV).
    `scale` multiplies the scores. What lies after the last document yields zeros. The lengths `max_seqlen_q` and
    `max_seqlen_k` are part of the usual signature and not needed: the grid follows from N and S, the rest is read on the device.

    Two runs give the same bits, gradients too. Raises ValueError where shapes, dtypes or numbers do not fit.
    """
    if query.shape[1] % key.shape[1] or key.shape != value.shape or query.shape[2] != key.shape[2]:
        raise ValueError(f"shapes do not fit: query {query.shape}, key {key.shape}, value {value.shape}")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(f"dtypes differ: query {query.dtype}, key {key.dtype}, value {value.dtype}")
    if cu_seqlens_q.dtype != torch.int32 or cu_seqlens_k.dtype != torch.int32 or cu_seqlens_q.shape != cu_seqlens_k.shape:
        raise ValueError("cu_seqlens_q and cu_seqlens_k have to be of one shape, and in int32")
    if scale <= 0 or (window is not None and window < 1):
        raise ValueError(f"scale and window have to be positive: {scale}, {window}")
    output, _ = packed_attention(query, key, value, cu_seqlens_q.contiguous(), cu_seqlens_k.contiguous(), window, scale)
    return output
