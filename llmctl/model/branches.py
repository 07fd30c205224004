"""Attention over trees of tokens: rows that begin alike, go through the model once and then part.

A question's trunk is read once and each of its choices sees the trunk and itself, not the other choices (the tree
attention of speculative decoding: SpecInfer, arXiv 2305.09781, section 4.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmctl.model.attention import attention_implementation, require_plain_softmax

NAME = "llmctl_branches"
TRUNK, PADDING = 0, -1


class Branches:
    """Where the tokens of rows stand that follow `prefix` tokens in a cache.

    `positions` [B, N]: in the document, from `prefix` on; `branch` [B, N]: `TRUNK`, the number of a branch from 1 on, or
    `PADDING`.
    """

    def __init__(self, prefix: int, positions: Tensor, branch: Tensor) -> None:
        self.prefix, self.positions, self.branch = prefix, positions, branch
        self._masks: dict[tuple[int, int | None], Tensor] = {}

    def to(self, device: torch.device) -> "Branches":
        return Branches(self.prefix, self.positions.to(device), self.branch.to(device))

    def mask(self, cached: int, window: int | None) -> Tensor:
        """[B, 1, N, cached + N] bool: what each token sees of the last `cached` tokens of the prefix and of its row."""
        if (cached, window) not in self._masks:
            query, key = self.positions[:, :, None], self.positions[:, None]
            kin = (self.branch[:, None] == TRUNK) | (self.branch[:, None] == self.branch[:, :, None])
            own = kin & (key <= query)
            before = torch.arange(self.prefix - cached, self.prefix, device=query.device)
            past = torch.ones(*self.positions.shape, cached, dtype=torch.bool, device=query.device)
            if window is not None:
                own &= query - key < window
                past = query - before < window
            self._masks[cached, window] = torch.cat([past, own], dim=-1)[:, None]
        return self._masks[cached, window]


def attention_for_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    branches: Branches | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """The signature of `transformers`' attention functions: `[B, H, N, D]`, keys of the cache first -> `[B, N, H, D]`."""
    require_plain_softmax(others)
    if branches is None:
        raise ValueError("attention over branches needs `branches`")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    mask = branches.mask(key.shape[2] - query.shape[2], sliding_window)
    query, key = query.to(value.dtype), key.to(value.dtype)  # autocast leaves rotated ones in fp32 in some models
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling).transpose(1, 2), None


@contextmanager
def branching_attention(model: Any) -> Iterator[None]:
    """Inside the block `model` takes `branches=` and attends as they say."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention_for_transformers)
    with attention_implementation(model, NAME):
        yield
