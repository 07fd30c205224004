"""The elementwise part of SwiGLU (arXiv 2002.05202): silu(gate) * up. The backward pass needs its inputs alone."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from llmctl_kernels import runtime


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate [..., F]), rounded to the type of `gate`, times up [..., F]: [..., F] in the type that both are promoted to."""
    return plain_swiglu(gate, up) if runtime.missing(gate.device.type) else _swiglu(gate, up)


def plain_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    return F.silu(gate) * up


@torch.library.custom_op("llmctl_kernels::swiglu", mutates_args=())
def _swiglu(gate: Tensor, up: Tensor) -> Tensor:
    from llmctl_kernels import swiglu_kernels as kernels

    out = _fake_swiglu(gate, up)
    kernels.forward(gate.contiguous(), up.contiguous(), out)
    return out


@_swiglu.register_fake
def _fake_swiglu(gate: Tensor, up: Tensor) -> Tensor:
    if gate.shape != up.shape:
        raise ValueError(f"SwiGLU of {list(gate.shape)} and {list(up.shape)}: shapes have to be the same")
    return gate.new_empty(gate.shape, dtype=torch.promote_types(gate.dtype, up.dtype))


@torch.library.custom_op("llmctl_kernels::swiglu_backward", mutates_args=())
def _swiglu_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    from llmctl_kernels import swiglu_kernels as kernels

    gradients = _fake_swiglu_backward(gradient, gate, up)
    kernels.backward(gradient.contiguous(), gate.contiguous(), up.contiguous(), *gradients)
    return gradients


@_swiglu_backward.register_fake
def _fake_swiglu_backward(gradient: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    return gate.new_empty(gate.shape), up.new_empty(up.shape)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
    return _swiglu_backward(gradient, *ctx.saved_tensors)


_swiglu.register_autograd(_backward, setup_context=_keep)
