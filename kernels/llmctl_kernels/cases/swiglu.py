"""SwiGLU (arXiv 2002.05202): `gate [N, F]`, `up [N, F]` -> `silu(gate) * up`."""

import torch
from torch import Tensor

from llmctl_kernels.cases.case import TAIL, Case, Implementation, Large, Model, Outputs, Tensors, Work, last_rows, liger, normal


def fused(gate: Tensor, up: Tensor) -> Outputs:
    from llmctl_kernels.swiglu import swiglu

    return (swiglu(gate, up),)


def plain(gate: Tensor, up: Tensor) -> Outputs:
    from llmctl_kernels.swiglu import plain_swiglu

    return (plain_swiglu(gate, up),)


def exact(gate: Tensor, up: Tensor) -> Outputs:
    return (gate * torch.sigmoid(gate) * up,)


def of_liger() -> Implementation:
    function = liger().liger_swiglu
    return lambda gate, up: (function(gate, up),)


def work(rows: int, size: int) -> Work:
    """Three tensors move forward; backward reads three and writes two."""
    return Work(2 * 3 * rows * size, 2 * 8 * rows * size, 5 * rows * size, 15 * rows * size)


def case(rows: int, size: int, what: str = "") -> Case:
    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        return {name: normal((rows, size), device, dtype, generator).mul_(2) for name in ("gate", "up")}

    return Case(
        kernel="swiglu",
        description=what or f"[{rows}, {size}]",
        inputs=inputs,
        wants_gradient=("gate", "up"),
        fused=fused,
        plain=plain,
        exact=exact,
        work=work(rows, size),
        bound="memory",
        others={"Liger": of_liger},
    )


def typical(small: bool) -> list[Case]:
    return [case(7, 40) if small else case(4096, 8192)]


def edges(small: bool, device_type: str) -> list[Case]:
    rows, size = (3, 21) if small else (1001, 3001)
    return [case(rows, size, "odd sizes"), case(0, size, "no rows"), case(1, size, "one row"), case(rows, 1, "one column")]


def large() -> Large:
    rows, size = 2**31 // 11_008 + 1024, 11_008
    return Large(case(rows, size), case(TAIL, size), last_rows("gate", "up"), ("gate", "up"), 8 * 2 * rows * size)


def benchmarks(model: Model, tokens: int) -> list[Case]:
    return [case(tokens, model.feed_forward)]
