"""Attention of packed documents in plain torch, with a dense mask: for tests and benchmarks."""

import torch
from torch import Tensor


def reference_attention(
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
    """What `fused_attention` computes, `[N, H, D]`, in the dtype of `query`; the softmax in float32 at least.

    Loops over the documents on the host and holds the scores `[H, queries, keys]` of one at a time. Differentiable.
    """
    query_starts, key_starts = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    outputs = []
    for number in range(len(query_starts) - 1):
        rows = slice(query_starts[number], query_starts[number + 1])
        columns = slice(key_starts[number], key_starts[number + 1])
        outputs.append(_document(query[rows], key[columns], value[columns], window, scale))
    outputs.append(torch.zeros_like(query[query_starts[-1] :]))
    return torch.cat(outputs)


def _document(query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float) -> Tensor:
    """One document's queries `[n, H, D]`, which are the last of its keys `[m, KV, D]`."""
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, dim=1), value.repeat_interleave(group, dim=1)
    positions = torch.arange(len(key) - len(query), len(key), device=query.device)[:, None]
    keys = torch.arange(len(key), device=query.device)[None, :]
    hidden = keys > positions
    if window is not None:
        hidden = hidden | (positions - keys >= window)
    scores = torch.einsum("nhd,mhd->hnm", query, key) * scale
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32)).masked_fill(hidden, float("-inf"))
    return torch.einsum("hnm,mhd->nhd", scores.softmax(dim=-1).to(value.dtype), value)
