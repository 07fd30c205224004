"""Triton kernels of SwiGLU's elementwise part."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

BLOCK = 2048
WARPS = 4
"""16 elements a thread: two loads of 16 bytes in bf16 from each tensor."""


@triton.jit
def forward_kernel(gate, up, out, size, BLOCK: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < size
    value = tl.load(gate + place, mask=there, other=0.0).to(tl.float32)
    activated = (value * tl.sigmoid(value)).to(gate.dtype.element_ty).to(tl.float32)
    product = activated * tl.load(up + place, mask=there, other=0.0).to(tl.float32)
    tl.store(out + place, product.to(out.dtype.element_ty), mask=there)


@triton.jit
def backward_kernel(gradient, gate, up, gate_gradient, up_gradient, size, BLOCK: tl.constexpr):
    """d silu(g) / dg = s (1 + g (1 - s)), with s = sigmoid(g)."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    there = place < size
    of_out = tl.load(gradient + place, mask=there, other=0.0).to(tl.float32)
    value = tl.load(gate + place, mask=there, other=0.0).to(tl.float32)
    factor = tl.load(up + place, mask=there, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(value)
    activated = (value * sigmoid).to(gate.dtype.element_ty).to(tl.float32)
    of_gate = of_out * factor * sigmoid * (1 + value * (1 - sigmoid))
    tl.store(gate_gradient + place, of_gate.to(gate_gradient.dtype.element_ty), mask=there)
    tl.store(up_gradient + place, (of_out * activated).to(up_gradient.dtype.element_ty), mask=there)


def forward(gate: Tensor, up: Tensor, out: Tensor) -> None:
    """Fill `out`. All are contiguous."""
    if size := gate.numel():
        launch: Any = forward_kernel[(triton.cdiv(size, BLOCK),)]
        launch(gate, up, out, size, BLOCK=BLOCK, num_warps=WARPS)


def backward(gradient: Tensor, gate: Tensor, up: Tensor, gate_gradient: Tensor, up_gradient: Tensor) -> None:
    """Fill the gradients of `gate` and `up`. All are contiguous."""
    if size := gate.numel():
        launch: Any = backward_kernel[(triton.cdiv(size, BLOCK),)]
        launch(gradient, gate, up, gate_gradient, up_gradient, size, BLOCK=BLOCK, num_warps=WARPS)
