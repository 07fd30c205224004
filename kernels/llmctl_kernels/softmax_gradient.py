"""Cross entropy of a block of logits and its gradient, in place: the one pass over [C, V] that eager torch makes of many."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from llmctl_kernels.runtime import power_of_two

BLOCK = 8192
"""Logits of a row at a time: 16 for each thread of 16 warps."""


@triton.jit
def _row_kernel(
    logits,
    labels,
    losses,
    z_losses,
    row_stride,
    vocabulary,
    z_loss,
    ignored: tl.constexpr,
    with_gradient: tl.constexpr,
    block: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    start = logits + row * row_stride
    label = tl.load(labels + row)
    column = tl.arange(0, block)
    if label == ignored:
        tl.store(losses + row, 0.0)
        tl.store(z_losses + row, 0.0)
        if with_gradient:
            for first in range(0, vocabulary, block):
                inside = first + column < vocabulary
                tl.store(start + first + column, tl.zeros([block], dtype=logits.dtype.element_ty), mask=inside)
    else:
        # Before the reductions below, whose barriers keep it ahead of the gradient that another warp writes to its place.
        wanted = tl.load(start + label).to(tl.float32)
        largest = -float("inf")
        total = 0.0
        for first in range(0, vocabulary, block):
            values = tl.load(start + first + column, mask=first + column < vocabulary, other=-float("inf")).to(tl.float32)
            new = tl.maximum(largest, tl.max(values, 0))
            total = total * tl.exp(largest - new) + tl.sum(tl.exp(values - new), 0)
            largest = new
        log_partition = largest + tl.log(total)
        squared = z_loss * log_partition * log_partition
        tl.store(z_losses + row, squared)
        tl.store(losses + row, log_partition - wanted + squared)
        if with_gradient:
            factor = 1.0 + 2.0 * z_loss * log_partition
            for first in range(0, vocabulary, block):
                inside = first + column < vocabulary
                values = tl.load(start + first + column, mask=inside, other=-float("inf")).to(tl.float32)
                gradient = tl.exp(values - log_partition) * factor - tl.where(first + column == label, 1.0, 0.0)
                tl.store(start + first + column, gradient.to(logits.dtype.element_ty), mask=inside)


def cross_entropy_in_place(
    logits: Tensor, labels: Tensor, z_loss: float, ignored: int, with_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Cross entropy plus z-loss, and z-loss, of each row of `logits` [C, V]: two [C] in fp32, 0 where `labels` [C] is `ignored`.

    With `with_gradient`, `logits` hold the gradient of the first afterwards. A row is one program's from its first read to its
    last write. Offsets of rows have 64 bits: [C, V] may hold more than 2^31 logits.
    """
    rows, vocabulary = logits.shape
    losses = torch.empty(rows, dtype=torch.float32, device=logits.device)
    z_losses = torch.empty_like(losses)
    if rows:
        launch: Any = _row_kernel[(rows,)]
        block = min(BLOCK, power_of_two(vocabulary))
        launch(
            logits, labels, losses, z_losses, logits.stride(0), vocabulary, z_loss,
            ignored=ignored, with_gradient=with_gradient, block=block, num_warps=max(1, block // 512),
        )  # fmt: skip
    return losses, z_losses
