"""Causal attention inside documents by torch alone, document by document: what serves a CPU.

Documents of one length go together. A sliding window is cut into blocks that see themselves and the block before: no [T, T] mask.
"""

from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SHORT, MOST_SCORES = 1024, 1 << 25  # keys, and scores in memory, of attention by two products on a CPU


@lru_cache(maxsize=8)
def window_mask(window: int, device: torch.device) -> Tensor:
    """[W, 2W] bool: query i of a block may see keys i+1 .. i+W of the block before and its own block together."""
    query = torch.arange(window, device=device)[:, None]
    key = torch.arange(2 * window, device=device)[None]
    return (key > query) & (key <= query + window)


def causal_mask(length: int, device: torch.device) -> Tensor:
    """[T, T] bool."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()


@lru_cache(maxsize=8)
def bias_of(mask_of: Callable[[int, torch.device], Tensor], size: int, device: torch.device) -> Tensor:
    """A mask as what is added to scores in bfloat16."""
    mask = mask_of(size, device)
    return torch.zeros(mask.shape, dtype=torch.bfloat16, device=device).masked_fill(~mask, float("-inf"))


def attend(query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float) -> Tensor:
    """Attention of `[..., T, D]` to as many keys, causal; or with a `window` of T to `window_mask`'s `[..., 2T, D]`."""
    scores = query.numel() // query.shape[-1] * key.shape[-2]
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or key.shape[-2] > SHORT or scores > MOST_SCORES:
        mask = None if window is None else window_mask(window, query.device)
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scale)
    # Two products with the scores between them, in half the time of torch's fused kernel for CPUs (2.13) where keys are few. The
    # scores are rounded to bfloat16, as in `transformers`' eager attention: outputs are off by 3.5e-3 instead of 2.0e-3.
    mask_of, size = (causal_mask, key.shape[-2]) if window is None else (window_mask, window)
    weights = (query * scale @ key.transpose(-1, -2) + bias_of(mask_of, size, query.device)).softmax(-1)
    return weights @ value


def causal_attention(query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float) -> Tensor:
    """Causal attention of documents of one length: `[B, H, L, D]` (as many key heads as query heads) -> the same shape."""
    length = query.shape[2]
    if window is None or window >= length:
        return attend(query, key, value, None, scale)
    blocks = -(-length // window)
    padding = blocks * window - length
    if padding:  # the padded keys come after every real query, which therefore never sees them
        query, key, value = (F.pad(t, (0, 0, 0, padding)) for t in (query, key, value))
    first = attend(query[:, :, :window], key[:, :, :window], value[:, :, :window], None, scale)

    def pairs(tensor: Tensor) -> Tensor:
        """Every block from the second on with the one before it: [B * H, blocks - 1, 2W, D]."""
        whole = tensor.flatten(0, 1).unflatten(1, (blocks, window))
        return torch.cat([whole[:, :-1], whole[:, 1:]], dim=2)

    rest = attend(query.flatten(0, 1).unflatten(1, (blocks, window))[:, 1:], pairs(key), pairs(value), window, scale)
    rest = rest.flatten(1, 2).unflatten(0, query.shape[:2])
    return torch.cat([first, rest], dim=2)[:, :, :length]


def per_document(query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], window: int | None, scale: float) -> Tensor:
    """`[1, H, N, D]` -> `[1, H, N, D]`, document by document."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    if len(set(lengths)) == 1:  # rows without boundaries, the common case of pretraining: one call
        count = len(lengths)
        q, k, v = (t[0].unflatten(1, (count, lengths[0])).transpose(0, 1) for t in (query, key, value))
        return causal_attention(q, k, v, window, scale).transpose(0, 1).flatten(1, 2)[None]
    pieces, at = [], 0
    for length in lengths:
        q, k, v = (t[:, :, at : at + length] for t in (query, key, value))
        pieces.append(causal_attention(q, k, v, window, scale))
        at += length
    return torch.cat(pieces, dim=2)
