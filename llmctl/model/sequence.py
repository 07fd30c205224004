"""Attention of packed rows whose tokens are shared out over ranks, each of which has a contiguous part of them.

The ranks of a `SequenceGroup` exchange either heads or keys. By heads (DeepSpeed Ulysses, arXiv 2309.14509) two all-to-alls
surround attention: each rank attends with some of the heads to the whole row. By keys (the context parallelism of Llama 3,
arXiv 2407.21783, section 3.3.2) each rank gathers the keys and values of the whole row, and its own queries attend to them.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl.model.attention import packed_attention, takes_varlen
from llmctl.tokens.batch import Batch
from llmctl_kernels.attention import Backend, per_document, varlen

BLOCK = 256
"""Queries at a time whose keys begin before their part, off the GPU: a mask of [256, K] serves all blocks, 64 MiB of fp32 for
65,536 keys."""


@dataclass(frozen=True)
class SequenceGroup:
    """The ranks that share each row, as one of them sees it."""

    group: Any
    """The process group."""
    size: int
    rank: int
    """In the group; it says which part of the tokens is this rank's."""
    exchange: Literal["heads", "keys"]

    def part_of(self, batch: Batch) -> Batch:
        """The tokens, labels and positions of this rank, `[1, N / size]` each; the documents' boundaries stay those of the whole.

        Raises:
            ValueError: the tokens cannot be shared out evenly.
        """
        tokens = batch.tokens.shape[1]
        if tokens % self.size:
            raise ValueError(f"{tokens} tokens cannot be shared out over {self.size} ranks")
        part = slice(self.rank * tokens // self.size, (self.rank + 1) * tokens // self.size)
        return replace(
            batch, tokens=batch.tokens[:, part], labels=batch.labels[:, part], positions=batch.positions[:, part]
        )  # fmt: skip

    # Compiled, DeepSpeed's all-to-all would be traced into and its gradient would be zero, without a word (0.19.8).
    @torch.compiler.disable()
    def attention(
        self,
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
        """`packed_attention` of a part: `[1, H, N / size, D]` -> `[1, N / size, H, D]`, with the boundaries of the whole. A
        collective call, and so is its backward pass."""
        if self.exchange == "heads":
            query, key, value = (
                self._all_to_all(tensor.transpose(1, 2), scatter=2, gather=1).transpose(1, 2) for tensor in (query, key, value)
            )
            out = packed_attention(query, key, value, lengths, cu_seqlens, max_length, window, scale, backend)
            return self._all_to_all(out, scatter=1, gather=2)
        # Tokens come first, as the ranks' parts are put one after the other; one call for keys and values together.
        both = torch.stack([key[0], value[0]]).permute(2, 0, 1, 3)
        whole = Gathered.apply(self.group, self.size, both).permute(1, 2, 0, 3)[:, None]
        start = self.rank * query.shape[2]
        return attention_of_part(query, whole[0], whole[1], start, lengths, cu_seqlens, max_length, window, scale, backend)

    def _all_to_all(self, tensor: Tensor, scatter: int, gather: int) -> Tensor:
        """`[1, N, H, D]` with one dimension shared out over the ranks and another put together."""
        from deepspeed.sequence.layer import _SeqAllToAll

        out = _SeqAllToAll.apply(self.group, tensor, scatter, gather, 0)
        assert isinstance(out, Tensor)
        return out


class Gathered(torch.autograd.Function):
    """`[M, ...]` of each rank -> `[size M, ...]` of all of them. The gradients that the ranks have for a part are summed."""

    @staticmethod
    def forward(ctx: Any, group: Any, size: int, part: Tensor) -> Tensor:
        ctx.group, ctx.shape = group, part.shape
        whole = part.new_empty(size * part.shape[0], *part.shape[1:])
        torch.distributed.all_gather_single(whole, part.contiguous(), group=group)
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (gradient,) = grads
        mine = gradient.new_empty(ctx.shape)
        torch.distributed.reduce_scatter_single(mine, gradient.contiguous(), group=ctx.group)
        return None, None, mine


def documents_inside(lengths: tuple[int, ...], start: int, size: int) -> tuple[int, tuple[int, ...]]:
    """Of the part of a row `size` tokens from `start` on: how many tokens of its first document come before it, and the lengths
    of the documents as far as they are inside."""
    before, inside, at = 0, [], 0
    for length in lengths:
        first, last = max(at, start), min(at + length, start + size)
        if first < last:
            before = before if inside else first - at
            inside.append(last - first)
        at += length
    return before, tuple(inside)


def attention_of_part(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    start: int,
    lengths: tuple[int, ...],
    cu_seqlens: Tensor,
    max_length: int,
    window: int | None,
    scale: float,
    backend: Backend,
) -> Tensor:
    """Causal attention inside documents of the queries of a part of a row, `[1, H, M, D]`, from token `start` on, to the keys of
    the whole row, `[1, KV, N, D]` -> `[1, M, H, D]`."""
    size = query.shape[2]
    before, inside = documents_inside(lengths, start, size)
    begin, end = start - before, start + size
    if takes_varlen(query, backend):
        # The kernels align queries with the last of their keys. A document that ends before the part or begins after it has none.
        boundaries = cu_seqlens.clamp(start, end) - start, cu_seqlens.clamp(begin, end) - begin
        longest = min(max_length, size), max_length
        query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key[:, :, begin:end], value[:, :, begin:end]))
        return varlen(query, key, value, boundaries, longest, window, scale, backend)[None]
    first = inside[0] if before else 0
    found = []
    if first:
        until = start + first
        found.append(end_of_document(query[:, :, :first], key[:, :, begin:until], value[:, :, begin:until], window, scale))
    if first < size:
        rest = (query[:, :, first:], key[:, :, start + first : end], value[:, :, start + first : end])
        found.append(per_document(*rest, inside[1:] if first else inside, window, scale))
    return torch.cat(found, dim=2).transpose(1, 2)


def end_of_document(query: Tensor, key: Tensor, value: Tensor, window: int | None, scale: float) -> Tensor:
    """Causal attention of the last L tokens of a document, `[1, H, L, D]`, to all of its K, `[1, KV, K, D]`: block by block."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (tensor.repeat_interleave(groups, dim=1) for tensor in (key, value))
    queries, keys = query.shape[2], key.shape[2]
    size = min(BLOCK, queries)
    reach = keys if window is None else min(keys, size + window - 1)
    bias = last_seen_last(size, reach, window, query)
    blocks = []
    for at in range(0, queries, size):
        until = min(at + size, queries)
        seen = keys - queries + until
        part = slice(max(0, seen - reach), seen)
        mask = bias[at - until :, part.start - seen :]
        blocks.append(
            F.scaled_dot_product_attention(query[:, :, at:until], key[:, :, part], value[:, :, part], attn_mask=mask, scale=scale)
        )
    return torch.cat(blocks, dim=2)


def last_seen_last(queries: int, keys: int, window: int | None, like: Tensor) -> Tensor:
    """`[queries, keys]`: what is added to scores where the last query is that of the last key. Its lower right corner serves
    fewer of either."""
    place = torch.arange(keys, device=like.device)
    distance = place[keys - queries :, None] - place
    seen = (distance >= 0) & (distance < (keys if window is None else window))
    return torch.zeros(seen.shape, dtype=like.dtype, device=like.device).masked_fill(~seen, float("-inf"))
