"""A frozen linear layer with a low-rank adapter (arXiv 2106.09685) as one operator."""

from typing import Any

import torch
from torch import Tensor

from llmctl_kernels import runtime


def lora_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, kind: torch.dtype, fused: bool = False
) -> Tensor:
    """(x [..., I], weight [O, I], bias [O], a [R, I], b [O, R]) -> x W^T + bias + scale (x A^T) B^T, [..., O] in `kind`.

    Weight and bias are frozen: they get no gradient. Products are computed in `kind`; gradients come in the types of inputs.
    `fused`: one Triton kernel for both products, forward as backward, where it can run; else those of torch, added in place.
    """
    flat = x.flatten(0, -2).to(kind)
    frozen = None if bias is None else bias.detach().to(kind)
    fused = fused and kind != torch.float64 and runtime.missing(x.device.type) is None
    out, _ = _forward(flat, weight.detach().to(kind), frozen, a, b, scale, fused)
    return out.unflatten(0, x.shape[:-1])


@torch.library.custom_op("llmctl_kernels::lora_linear", mutates_args=())
def _forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, fused: bool
) -> tuple[Tensor, Tensor]:
    """x [M, I] -> [M, O], and x A^T [M, R], which backward needs. All of one type but for a and b, whose copies in that of x live
    for no longer than the product: backward keeps the parameters themselves.
    """
    a, b = a.to(x.dtype), b.to(x.dtype)
    low = x @ a.T
    if fused:
        from llmctl_kernels.lora_linear_kernels import launch_sum

        return launch_sum(x, weight.T, low, b.T, bias, scale), low
    out = x @ weight.T if bias is None else torch.addmm(bias, x, weight.T)
    return out.addmm_(low, b.T, alpha=scale), low


@_forward.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, fused: bool) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], a.shape[0])


@torch.library.custom_op("llmctl_kernels::lora_linear_backward", mutates_args=())
def _backward(
    gradient: Tensor, x: Tensor, low: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, of_input: bool, fused: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of x, empty where it is not asked for, a and b."""
    through = (gradient @ b.to(x.dtype)) * scale
    of_a, of_b = (through.T @ x).to(a.dtype), (gradient.T @ low * scale).to(b.dtype)
    if not of_input:
        return x.new_empty(0), of_a, of_b
    if fused:
        from llmctl_kernels.lora_linear_kernels import launch_sum

        return launch_sum(gradient, weight, through, a.to(x.dtype), None, 1.0), of_a, of_b
    return (gradient @ weight).addmm_(through, a.to(x.dtype)), of_a, of_b


@_backward.register_fake
def _(
    gradient: Tensor, x: Tensor, low: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, of_input: bool, fused: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape if of_input else 0), a.new_empty(a.shape), b.new_empty(b.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, weight, _, a, b, ctx.scale, ctx.fused = inputs
    ctx.set_materialize_grads(False)  # `low` has none, and it would be filled with zeros
    ctx.save_for_backward(x, output[1], weight, a, b)


def _formula(ctx: Any, gradient: Tensor | None, _: Tensor | None) -> Any:
    if gradient is None:
        return (None,) * 7
    of_input = ctx.needs_input_grad[0]
    of_x, of_a, of_b = _backward(gradient, *ctx.saved_tensors, ctx.scale, of_input, ctx.fused)
    return of_x if of_input else None, None, None, of_a, of_b, None, None


_forward.register_autograd(_formula, setup_context=_save)
