"""Attention over packed documents, behind `transformers`' attention interface, so that any of its models can use it.

Queries, keys and values come as one row `[1, H, N, D]` of documents with `lengths`; no token sees another document.
On a GPU a fused kernel takes the boundaries as they are (flash-attn when installed, else torch's own
`varlen_attn`). Elsewhere each document goes through torch's fused attention by itself; documents of one length go
together. A sliding window is cut into blocks that see themselves and the block before: no [T, T] mask.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.errors import UserError

if TYPE_CHECKING:
    from llmctl.model.sequence import SequenceGroup

NAME = "llmctl_packed"
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


def takes_varlen(query: Tensor) -> bool:
    """Whether a fused kernel takes the boundaries of documents."""
    return query.is_cuda and query.dtype in (torch.bfloat16, torch.float16)


def varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    window: int | None,
    scale: float,
) -> Tensor:
    """`[1, H, N, D]` -> `[1, N, H, D]` by one fused kernel over all documents. `boundaries` (cu_seqlens) and `longest` document
    of queries and of keys; where a document has fewer queries than keys, they are its last."""
    q, k, v = (t[0].transpose(0, 1) for t in (query, key, value))
    before = -1 if window is None else window - 1  # the kernels do not count the current token
    if find_spec("flash_attn") is not None:
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

        return flash_attn_varlen_func(
            q, k, v, *boundaries, *longest,
            softmax_scale=scale, causal=True, window_size=(before, 0 if window else -1),
        )[None]  # fmt: skip
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q, k, v, *boundaries, *longest,
        scale=scale, window_size=(before, 0), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip
    assert isinstance(out, Tensor)
    return out[None]


@torch.compiler.disable()  # document lengths are Python numbers, new in every batch: compiled, each would be compiled anew
def packed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lengths: tuple[int, ...],
    cu_seqlens: Tensor,
    max_length: int,
    window: int | None,
    scale: float,
) -> Tensor:
    """Causal attention inside documents: `[1, H, N, D]`, keys and values of as many heads or fewer -> `[1, N, H, D]`."""
    if takes_varlen(query):
        return varlen(query, key, value, (cu_seqlens, cu_seqlens), (max_length, max_length), window, scale)
    return per_document(query, key, value, lengths, window, scale).transpose(1, 2)


def attention_for_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    lengths: tuple[int, ...] | None = None,
    cu_seqlens: Tensor | None = None,
    max_length: int | None = None,
    sequence: "SequenceGroup | None" = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The signature of `transformers`' attention functions; boundaries arrive as keyword arguments of the model, and so do the
    ranks that have the rest of the tokens, if there are such."""
    require_plain_softmax(others)
    if lengths is None or cu_seqlens is None or max_length is None:
        raise ValueError("packed attention needs lengths, cu_seqlens and max_length; call the model through llmctl.model.loss")
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not query.dtype == key.dtype == value.dtype:  # autocast leaves rotated queries and keys in fp32 in some models
        query, key = query.to(value.dtype), key.to(value.dtype)
    attention = packed_attention if sequence is None else sequence.attention
    return attention(query, key, value, lengths, cu_seqlens, max_length, sliding_window, scale), None


def require_plain_softmax(arguments: dict[str, Any]) -> None:
    """Raises:
    UserError: the model asks its attention for capped scores (Gemma 2) or attention sinks (gpt-oss).
    """
    asked = [name for name in ("softcap", "s_aux") if arguments.get(name) is not None]
    if asked:
        raise UserError(f"this model's attention has `{asked[0]}`, which is not supported: scores would be silently wrong")


def use_packed_attention(model: Any) -> None:
    """Let `model` attend inside packed documents from now on."""
    from transformers import AttentionInterface, AttentionMaskInterface

    AttentionInterface.register(NAME, attention_for_transformers)
    AttentionMaskInterface.register(NAME, no_mask)
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    base.set_attn_implementation(NAME)


def no_mask(*arguments: Any, **named: Any) -> None:
    """Boundaries and causality are the attention function's own business."""


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
