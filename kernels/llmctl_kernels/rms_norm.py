"""RMSNorm (arXiv 1910.07467), alone or with the addition to the residual stream that comes before or after it.

Statistics are in fp32. `cast_first`: the normed values are rounded to the type of the input before the weight multiplies them
(Llama, Mistral, Qwen); else the product is rounded (Olmo, Gemma). `offset` is added to the weight (Gemma: 1). The backward pass
needs the norm's input and 1/rms; the weight's gradient is summed in fp32 (Liger-Kernel #950).
"""

from typing import Any

import torch
from torch import Tensor

from llmctl_kernels import runtime


def rms_norm(x: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0) -> Tensor:
    """x [..., D] / sqrt(mean(x^2) + eps) * (weight [D] + offset), [..., D]: in the type of x, or with `cast_first` in the one
    that x and the weight are promoted to."""
    if runtime.missing(x.device.type) is not None:
        return plain_rms_norm(x, weight, eps, cast_first, offset)
    return _rms_norm(x, weight, eps, cast_first, offset)[0]


def add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    """residual + x [..., D], in the type that both are promoted to, and its norm: blocks that norm what a sublayer reads."""
    if runtime.missing(x.device.type) is not None:
        return plain_add_rms_norm(x, residual, weight, eps, cast_first, offset)
    return _add_rms_norm(x, residual, weight, eps, cast_first, offset)[:2]


def rms_norm_add(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0
) -> Tensor:
    """residual + norm of x [..., D], in the type that both are promoted to: blocks that norm what a sublayer gives."""
    if runtime.missing(x.device.type) is not None:
        return plain_rms_norm_add(x, residual, weight, eps, cast_first, offset)
    return _rms_norm_add(x, residual, weight, eps, cast_first, offset)[0]


def plain_rms_norm(x: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0) -> Tensor:
    wide = x.float()
    normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)
    scale = weight.float() + offset
    if cast_first:
        return (scale * normed.to(x.dtype)).to(torch.promote_types(x.dtype, weight.dtype))
    return (scale * normed).to(x.dtype)


def plain_add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0
) -> tuple[Tensor, Tensor]:
    summed = residual + x
    return summed, plain_rms_norm(summed, weight, eps, cast_first, offset)


def plain_rms_norm_add(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool = False, offset: float = 0.0
) -> Tensor:
    return residual + plain_rms_norm(x, weight, eps, cast_first, offset)


def _check(x: Tensor, residual: Tensor, weight: Tensor) -> None:
    """Raises ValueError: shapes do not belong together. A kernel would read past a tensor's end."""
    if residual.shape != x.shape or weight.shape != x.shape[-1:]:
        raise ValueError(f"RMSNorm of {list(x.shape)} with a residual {list(residual.shape)} and a weight {list(weight.shape)}")


def _normed_type(x: Tensor, weight: Tensor, cast_first: bool) -> torch.dtype:
    return torch.promote_types(x.dtype, weight.dtype) if cast_first else x.dtype


def _empty(x: Tensor, kind: torch.dtype) -> Tensor:
    """Contiguous, whatever the strides of x."""
    return x.new_empty(x.shape, dtype=kind)


def _empty_rows(x: Tensor) -> Tensor:
    return x.new_empty(x.shape[:-1], dtype=torch.float32)


@torch.library.custom_op("llmctl_kernels::rms_norm", mutates_args=())
def _rms_norm(x: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float) -> tuple[Tensor, Tensor]:
    """The norm, and 1/rms [...] in fp32."""
    from llmctl_kernels import rms_norm_kernels as kernels

    out, inverse_rms = _fake_rms_norm(x, weight, eps, cast_first, offset)
    kernels.forward(x.contiguous(), None, weight.contiguous(), None, out, inverse_rms, eps, cast_first, offset)
    return out, inverse_rms


@_rms_norm.register_fake
def _fake_rms_norm(x: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float) -> tuple[Tensor, Tensor]:
    _check(x, x, weight)
    return _empty(x, _normed_type(x, weight, cast_first)), _empty_rows(x)


@torch.library.custom_op("llmctl_kernels::add_rms_norm", mutates_args=())
def _add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The sum, its norm, and 1/rms [...] in fp32."""
    from llmctl_kernels import rms_norm_kernels as kernels

    summed, out, inverse_rms = _fake_add_rms_norm(x, residual, weight, eps, cast_first, offset)
    tensors = x.contiguous(), residual.contiguous(), weight.contiguous()
    kernels.forward(*tensors, summed, out, inverse_rms, eps, cast_first, offset)
    return summed, out, inverse_rms


@_add_rms_norm.register_fake
def _fake_add_rms_norm(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float
) -> tuple[Tensor, Tensor, Tensor]:
    _check(x, residual, weight)
    summed = _empty(x, torch.promote_types(x.dtype, residual.dtype))
    return summed, _empty(x, _normed_type(summed, weight, cast_first)), _empty_rows(x)


@torch.library.custom_op("llmctl_kernels::rms_norm_add", mutates_args=())
def _rms_norm_add(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float
) -> tuple[Tensor, Tensor]:
    """The sum, and 1/rms [...] of x in fp32."""
    from llmctl_kernels import rms_norm_kernels as kernels

    out, inverse_rms = _fake_rms_norm_add(x, residual, weight, eps, cast_first, offset)
    tensors = x.contiguous(), residual.contiguous(), weight.contiguous()
    kernels.forward(*tensors, None, out, inverse_rms, eps, cast_first, offset)
    return out, inverse_rms


@_rms_norm_add.register_fake
def _fake_rms_norm_add(
    x: Tensor, residual: Tensor, weight: Tensor, eps: float, cast_first: bool, offset: float
) -> tuple[Tensor, Tensor]:
    _check(x, residual, weight)
    return _empty(x, torch.promote_types(_normed_type(x, weight, cast_first), residual.dtype)), _empty_rows(x)


@torch.library.custom_op("llmctl_kernels::rms_norm_backward", mutates_args=())
def _rms_norm_backward(
    gradient: Tensor,
    sum_gradient: Tensor | None,
    x: Tensor,
    weight: Tensor,
    inverse_rms: Tensor,
    of_weight: bool,
    cast_first: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of x [..., D], with `sum_gradient` [..., D] added, and of the weight [D], which is empty if not wanted."""
    from llmctl_kernels import rms_norm_kernels as kernels

    x_gradient = _empty(x, x.dtype)
    incoming = gradient.contiguous(), None if sum_gradient is None else sum_gradient.contiguous()
    kept = x.contiguous(), weight.contiguous(), inverse_rms
    weight_gradient = kernels.backward(*incoming, *kept, x_gradient, of_weight, cast_first, offset)
    return x_gradient, weight_gradient.to(weight.dtype)


@_rms_norm_backward.register_fake
def _(
    gradient: Tensor,
    sum_gradient: Tensor | None,
    x: Tensor,
    weight: Tensor,
    inverse_rms: Tensor,
    of_weight: bool,
    cast_first: bool,
    offset: float,
) -> tuple[Tensor, Tensor]:
    return _empty(x, x.dtype), weight.new_empty(weight.shape if of_weight else 0)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...], normed: Tensor) -> None:
    ctx.mark_non_differentiable(output[-1])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(normed, inputs[-4], output[-1])
    ctx.cast_first, ctx.offset = inputs[-2:]


def _gradients(ctx: Any, gradient: Tensor, sum_gradient: Tensor | None, of_weight: bool) -> tuple[Tensor, Tensor | None]:
    x, weight, inverse_rms = ctx.saved_tensors
    of_x, of_scale = _rms_norm_backward(gradient, sum_gradient, x, weight, inverse_rms, of_weight, ctx.cast_first, ctx.offset)
    return of_x, of_scale if of_weight else None


def _keep_input(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output, inputs[0])


def _keep_input_and_residual_type(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output, inputs[0])
    ctx.residual_type = inputs[1].dtype


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _keep(ctx, inputs, output, output[0])
    ctx.types = inputs[0].dtype, inputs[1].dtype


def _backward_of_norm(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if grads[0] is None:
        return (None,) * 5
    return *_gradients(ctx, grads[0], None, ctx.needs_input_grad[1]), None, None, None


def _backward_of_norm_add(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    if grads[0] is None:
        return (None,) * 6
    of_x, of_weight = _gradients(ctx, grads[0], None, ctx.needs_input_grad[2])
    return of_x, grads[0].to(ctx.residual_type), of_weight, None, None, None


def _backward_of_add_norm(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    of_sum, of_out = grads[:2]
    of_weight = None
    if of_out is not None:
        of_sum, of_weight = _gradients(ctx, of_out, of_sum, ctx.needs_input_grad[2])
    if of_sum is None:
        return (None,) * 6
    x_type, residual_type = ctx.types
    return of_sum.to(x_type), of_sum.to(residual_type), of_weight, None, None, None


_rms_norm.register_autograd(_backward_of_norm, setup_context=_keep_input)
_rms_norm_add.register_autograd(_backward_of_norm_add, setup_context=_keep_input_and_residual_type)
_add_rms_norm.register_autograd(_backward_of_add_norm, setup_context=_keep_sum)
