"""Causal attention inside packed documents: one function over several backends."""

from torch import Tensor

from llmctl_kernels.attention.backends import BACKENDS, Backend, best, described, missing, varlen
from llmctl_kernels.attention.documents import per_document

__all__ = ["BACKENDS", "Backend", "best", "described", "missing", "packed_attention", "per_document", "varlen"]


def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seqlens: Tensor,
    max_seqlen: int,
    window: int | None = None,
    scale: float | None = None,
    backend: Backend | None = None,
) -> Tensor:
    """`[N, H, D]`, keys and values `[N, KV, D]` of as many heads or a divisor of their number -> `[N, H, D]`.

    Documents begin at `cu_seqlens` [S + 1] int32, which may be padded with N; the longest has at most `max_seqlen` tokens. With
    a `window`, a token sees itself and the `window - 1` before it. Left out, `scale` is D^-0.5, and `backend` the best for this
    device and type; fp32 on a GPU goes document by document, as the libraries take half precision.
    """
    if scale is None:
        scale = float(query.shape[-1] ** -0.5)
    if backend is None:
        backend = best(query.device.type, query.shape[-1]) if query.element_size() == 2 else "per_document"
    if backend == "per_document":
        lengths = tuple(length for length in cu_seqlens.diff().tolist() if length)
        query, key, value = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        return per_document(query, key, value, lengths, window, scale)[0].transpose(0, 1)
    return varlen(query, key, value, (cu_seqlens, cu_seqlens), (max_seqlen, max_seqlen), window, scale, backend)
