"""A frozen linear layer and its low-rank addition (arXiv 2106.09685).

`x [N, D]`, `weight [O, D]`, `bias [O]`, `a [R, D]`, `b [O, R]` -> `x weight^T + bias + scale * (x a^T) b^T`, `[N, O]`.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from llmctl_kernels.cases.case import TAIL, Case, Large, Model, Outputs, Tensors, Work, last_rows, normal

SCALE = 2.0
RANK = 16


def fused(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, in_triton: bool = True) -> Outputs:
    from llmctl_kernels.lora_linear import lora_linear

    return (lora_linear(x, weight, bias, a, b, SCALE, x.dtype, in_triton),)


def plain(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None) -> Outputs:
    """Module by module, as PEFT computes it; it keeps the inputs' precision."""
    return (functional.linear(x, weight, bias) + SCALE * functional.linear(functional.linear(x, a), b),)


def work(rows: int, width: int, outputs: int, rank: int) -> Work:
    """The weight is frozen: backward has one product with it, and two each with `a` and `b`."""
    frozen, low_rank = 2 * rows * width * outputs, 2 * rows * rank * (width + outputs)
    rows_moved, weights = rows * (width + outputs), width * outputs + rank * (width + outputs)
    moved = 2 * (rows_moved + weights)
    return Work(moved, 2 * moved + 2 * rows_moved, frozen + low_rank, 2 * frozen + 3 * low_rank)


def case(
    rows: int, width: int, outputs: int, rank: int = RANK, with_bias: bool = False, in_triton: bool = True, what: str = ""
) -> Case:
    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        tensors = {
            "x": normal((rows, width), device, dtype, generator),
            "weight": normal((outputs, width), device, dtype, generator).mul_(width**-0.5),
            "a": normal((rank, width), device, dtype, generator).mul_(width**-0.5),
            "b": normal((outputs, rank), device, dtype, generator).mul_(rank**-0.5),
        }
        return tensors | ({"bias": normal((outputs,), device, dtype, generator)} if with_bias else {})

    return Case(
        kernel="lora_linear",
        description=what or f"[{rows}, {width}] x {outputs}, rank {rank}{'' if in_triton else ', products of torch'}",
        inputs=inputs,
        wants_gradient=("x", "a", "b"),
        fused=partial(fused, in_triton=in_triton),
        plain=plain,
        exact=plain,
        work=work(rows, width, outputs, rank),
        bound="compute",
        others={"torch's products": lambda: partial(fused, in_triton=False)},
    )


def typical(small: bool) -> list[Case]:
    rows, width, outputs, rank = (9, 32, 24, 4) if small else (4096, 2048, 8192, RANK)
    return [case(rows, width, outputs, rank, in_triton=in_triton) for in_triton in (True, False)]


def edges(small: bool, device_type: str) -> list[Case]:
    rows, width, outputs = (5, 20, 28) if small else (501, 1000, 2008)
    return [
        case(rows, width, outputs, rank=3, with_bias=True, what="odd rank, bias"),
        case(rows, width, outputs, rank=40 if small else 256, what="high rank"),
        case(rows, width + 1, outputs + 1, what="odd sizes"),
        case(1, width, outputs, what="one row"),
        case(0, width, outputs, what="no rows"),
    ]


def large() -> Large:
    rows, size = 2**19 + 1024, 4096
    return Large(case(rows, size, size), case(TAIL, size, size), last_rows("x"), ("x",), 8 * 2 * rows * size)


def benchmarks(model: Model, tokens: int) -> list[Case]:
    return [case(tokens, model.width, model.feed_forward)]
