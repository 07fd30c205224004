"""Cross entropy from hidden states and the weight of the output head, without the [N, V] logits.

The head's product, the softmax and their gradients are computed chunk by chunk in the forward pass; what is kept is the
gradient of the hidden states and, in fp32, that of the weight (bf16 accumulation over chunks loses digits: Liger-Kernel #512).
Three products are all that it takes, as many as with logits; kernels that keep no chunk compute the logits twice.
"""

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

IGNORED = -100
CHUNK_LOGITS = 2**20
"""Logits at a time on a CPU: 4 MiB of fp32 stay in its cache, and in memory that is used again."""
CHUNK_LOGITS_GPU, CHUNK_LOGITS_FUSED = 2**26, 2**28
"""Logits at a time on a GPU, by torch and by the Triton kernel: 512 MiB either way, in bf16 with fp32 beside it or in bf16 alone.
Every chunk reads and writes the weight's gradient: those of few tokens wait for memory."""
LEAST_TOKENS = 256
"""Tokens of a chunk at least, however large the vocabulary, for the same reason."""


def chunk_length(vocabulary: int, on_gpu: bool, fused: bool = False) -> int:
    """Tokens whose logits are computed together at most."""
    if not on_gpu:
        return max(LEAST_TOKENS, CHUNK_LOGITS // vocabulary)
    tokens = (CHUNK_LOGITS_FUSED if fused else CHUNK_LOGITS_GPU) // vocabulary
    return max(LEAST_TOKENS, tokens // LEAST_TOKENS * LEAST_TOKENS)


def even_length(tokens: int, vocabulary: int, on_gpu: bool, fused: bool = False) -> int:
    """Tokens of each chunk, so that on a GPU the last is not much shorter than the others."""
    most = chunk_length(vocabulary, on_gpu, fused)
    if not on_gpu or tokens <= most:
        return most
    chunks = -(-tokens // most)
    return -(-tokens // (chunks * LEAST_TOKENS)) * LEAST_TOKENS


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float, kind: torch.dtype, fused: bool = False
) -> tuple[Tensor, Tensor]:
    """(hidden [N, D], weight [V, D], labels [N] int64) -> (sum of cross entropy and z-loss, sum of z-loss), in fp32.

    Labels of -100 count nothing; the caller divides by the number of the others, over all ranks. z-loss is
    `z_loss * logsumexp^2` (PaLM, arXiv 2204.02311). Only the first output is differentiable, in `hidden` and `weight`;
    for one that asks for no gradient none is made. Products are computed in `kind`. `fused`: the softmax by a Triton kernel.
    """
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in (hidden, weight)]
    total, z_total, _, _ = _linear_cross_entropy(hidden, weight, labels, z_loss, kind, fused, *wanted)
    return total, z_total


@torch.library.custom_op("llmctl_kernels::linear_cross_entropy", mutates_args=())
def _linear_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    z_loss: float,
    kind: torch.dtype,
    fused: bool,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two sums, and the gradients of the first: [N, D] in the type of `hidden`, [V, D] in fp32, empty where not wanted."""
    shape, rows = hidden.shape, None
    if not hidden.is_cuda:  # which would be waited for
        rows = torch.nonzero(labels != IGNORED)[:, 0]
        hidden, labels = hidden[rows], labels[rows]
    hidden_grad = torch.zeros_like(hidden) if of_hidden else hidden.new_empty(0)
    weight_grad = weight.new_zeros(weight.shape if of_weight else 0, dtype=torch.float32)
    working = weight.to(kind)
    total = torch.zeros((), dtype=torch.float32, device=hidden.device)
    z_total = torch.zeros_like(total)
    softmax = _fused_softmax if fused else _softmax
    length = even_length(len(hidden), len(weight), hidden.is_cuda, fused)
    for start in range(0, len(hidden), length):
        part = slice(start, start + length)
        inputs = hidden[part].to(kind)
        losses, z_losses, gradient = softmax(inputs @ working.T, labels[part], z_loss, of_hidden or of_weight)
        total += losses.sum()
        z_total += z_losses.sum()
        if of_hidden:
            hidden_grad[part] = gradient @ working
        if of_weight:
            _add_product(weight_grad, gradient.T, inputs)
    if rows is not None and of_hidden:
        hidden_grad = hidden_grad.new_zeros(shape).index_copy_(0, rows, hidden_grad)
    return total, z_total, hidden_grad, weight_grad


@_linear_cross_entropy.register_fake
def _(
    hidden: Tensor,
    weight: Tensor,
    labels: Tensor,
    z_loss: float,
    kind: torch.dtype,
    fused: bool,
    of_hidden: bool,
    of_weight: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    total = hidden.new_empty((), dtype=torch.float32)
    return (
        total,
        torch.empty_like(total),
        hidden.new_empty(hidden.shape if of_hidden else 0),
        weight.new_empty(weight.shape if of_weight else 0, dtype=torch.float32),
    )


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, z_total, hidden_grad, weight_grad = output
    ctx.mark_non_differentiable(z_total, hidden_grad, weight_grad)
    ctx.set_materialize_grads(False)  # of the gradients' own gradients: as large as they
    ctx.save_for_backward(hidden_grad, weight_grad)
    ctx.of_hidden, ctx.of_weight = inputs[6:]
    ctx.weight_type = inputs[1].dtype


def _backward(ctx: Any, *grads: Any) -> Any:
    hidden_grad, weight_grad = ctx.saved_tensors
    of_hidden = hidden_grad * grads[0] if ctx.of_hidden else None
    of_weight = None
    if ctx.of_weight:  # scaled and rounded in one pass: a product in fp32 would be there in whole
        of_weight = torch.empty_like(weight_grad, dtype=ctx.weight_type)
        torch.mul(weight_grad, grads[0], out=of_weight)
    return of_hidden, of_weight, None, None, None, None, None, None


_linear_cross_entropy.register_autograd(_backward, setup_context=_keep)


@register_flop_formula(torch.ops.llmctl_kernels.linear_cross_entropy)
def _operations(hidden: list[int], weight: list[int], *others: Any, out_shape: Any = None, **named: Any) -> int:
    """Of the products, from shapes: logits, and the gradients that are wanted."""
    return 2 * hidden[0] * hidden[1] * weight[0] * (1 + sum(others[-2:]))


def _softmax(logits: Tensor, labels: Tensor, z_loss: float, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row cross entropy plus z-loss, and z-loss, [C] fp32, and the first's gradient [C, V] in the type of `logits`."""
    kept = labels != IGNORED
    index = labels.clamp(min=0)[:, None]
    # One fused pass over the logits gives all that is needed: log-partition = logit - log-probability.
    log_probabilities = torch.log_softmax(logits, -1, dtype=torch.float32)
    losses = -log_probabilities.gather(1, index)[:, 0]
    log_partition = logits.gather(1, index)[:, 0].float() + losses
    z_losses = z_loss * log_partition.square()
    gradient = logits
    if with_gradient:
        gradient = log_probabilities.exp_()
        gradient *= ((1 + 2 * z_loss * log_partition) * kept)[:, None]
        gradient.scatter_add_(1, index, -kept[:, None].float())
        gradient = gradient.to(logits.dtype)
    return torch.where(kept, losses + z_losses, 0.0), torch.where(kept, z_losses, 0.0), gradient


def _fused_softmax(logits: Tensor, labels: Tensor, z_loss: float, with_gradient: bool) -> tuple[Tensor, Tensor, Tensor]:
    from llmctl_kernels.softmax_gradient import cross_entropy_in_place

    losses, z_losses = cross_entropy_in_place(logits, labels, z_loss, IGNORED, with_gradient)
    return losses, z_losses, logits


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Add `left @ right` to `total` [V, D] in fp32."""
    if left.dtype == total.dtype:
        total.addmm_(left, right)
    elif total.is_cuda and _adds_in_fp32(total.device):
        torch.addmm(total, left, right, out_dtype=torch.float32, out=total)
    else:
        total += left @ right


@lru_cache
def _adds_in_fp32(device: torch.device) -> bool:
    """Whether this GPU's product of bf16 matrices can be added to fp32 without being rounded first (cuBLAS can; torch 2.13)."""
    half = torch.ones(16, 16, dtype=torch.bfloat16, device=device)
    total = torch.zeros(16, 16, device=device)
    try:
        torch.addmm(total, half, half, out_dtype=torch.float32, out=total)
    except (RuntimeError, TypeError):
        return False
    return bool((total == 16).all())


def plain_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, labels: Tensor, z_loss: float, kind: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The same with all logits at once, as `transformers` computes its loss: what the other is held against."""
    logits = (hidden.to(kind) @ weight.to(kind).T).to(torch.promote_types(kind, torch.float32))
    z_losses = z_loss * torch.where(labels == IGNORED, 0.0, logits.logsumexp(-1)).square().sum()
    return F.cross_entropy(logits, labels, reduction="sum", ignore_index=IGNORED) + z_losses, z_losses
