"""Causal attention inside packed documents: one function over several backends."""

from torch import Tensor

from llmctl_kernels.attention.backends import BACKENDS, Backend, best, described, missing, varlen
from llmctl_kernels.attention.per_document import per_document

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

    Documents begin at `cu_seqlens` [documents + 1] int32, which may be padded with N; the longest has at most `max_seqlen` tokens.
    With a `window`, a token sees itself and the `window - 1` before it. `scale`: D^-0.5 where it is left out. `backend`: the best
    for this device and type where it is left out; fp32 on a GPU goes document by document, as the libraries take half precision.
    """
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if backend is None:
        backend = best(query.device.type, query.shape[-1]) if query.element_size() == 2 else "per_document"
    if backend == "per_document":
        lengths = tuple(length for length in cu_seqlens.diff().tolist() if length)
        whole = (tensor.transpose(0, 1)[None] for tensor in (query, key, value))
        return per_document(*whole, lengths, window, scale)[0].transpose(0, 1)
    return varlen(query, key, value, (cu_seqlens, cu_seqlens), (max_seqlen, max_seqlen), window, scale, backend)
