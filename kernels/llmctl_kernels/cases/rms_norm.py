"""RMSNorm alone, after an addition (Llama) and before one (Olmo 3): `x [N, D]`, `weight [D]` -> `[N, D]`."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from llmctl_kernels.cases.case import TAIL, Case, Implementation, Large, Model, Outputs, Tensors, Work, last_rows, liger, normal

Form = Literal["rms_norm", "add_rms_norm", "rms_norm_add"]
EPS = 1e-6
TENSORS = {"rms_norm": (2, 5), "add_rms_norm": (4, 8), "rms_norm_add": (3, 6)}
"""`[N, D]` tensors that move, forward and both. Alone: x and y; then x, dy and dx. After an addition: two are read and two
written; then both gradients and the sum are read and one gradient is written, as the two are equal. Before an addition: three;
then dy, x and dx, as the residual's gradient is dy."""


def call(form: str, options: dict[str, Any], **inputs: Tensor) -> Outputs:
    import llmctl_kernels.rms_norm as module

    function = getattr(module, form)
    operands = (
        (inputs["x"], inputs["weight"]) if "residual" not in inputs else (inputs["x"], inputs["residual"], inputs["weight"])
    )
    outputs = function(*operands, EPS, **options)
    return outputs if isinstance(outputs, tuple) else (outputs,)


def exact(form: Form, offset: float, x: Tensor, weight: Tensor, residual: Tensor | None = None) -> Outputs:
    def norm(tensor: Tensor) -> Tensor:
        return tensor * torch.rsqrt(tensor.square().mean(-1, keepdim=True) + EPS) * (weight + offset)

    if residual is None:
        return (norm(x),)
    return (residual + norm(x),) if form == "rms_norm_add" else (x + residual, norm(x + residual))


def of_liger(form: Form) -> Implementation:
    library = liger()

    def alone(x: Tensor, weight: Tensor) -> Outputs:
        return (library.liger_rms_norm(x, weight, EPS, in_place=False),)

    def after_addition(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
        normed, total = library.liger_fused_add_rms_norm(x, residual, weight, EPS, in_place=False)
        return total, normed

    def before_addition(x: Tensor, residual: Tensor, weight: Tensor) -> Outputs:
        return (residual + library.liger_rms_norm(x, weight, EPS, in_place=False),)

    return {"rms_norm": alone, "add_rms_norm": after_addition, "rms_norm_add": before_addition}[form]


def work(form: Form, rows: int, width: int) -> Work:
    forward, both = TENSORS[form]
    size = rows * width
    return Work(2 * (forward * size + width), 2 * (both * size + 3 * width), 4 * size, 12 * size)


def case(rows: int, width: int, form: Form = "rms_norm", what: str = "", **options: Any) -> Case:
    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        names = ("x",) if form == "rms_norm" else ("x", "residual")
        tensors = {name: normal((rows, width), device, dtype, generator) for name in names}
        return tensors | {"weight": normal((width,), device, dtype, generator).mul_(0.2).add_(1)}

    return Case(
        kernel="rms_norm",
        description=f"{form} {what or f'[{rows}, {width}]'}",
        inputs=inputs,
        wants_gradient=("x", "weight") if form == "rms_norm" else ("x", "residual", "weight"),
        fused=partial(call, form, options),
        plain=partial(call, f"plain_{form}", options),
        exact=partial(exact, form, options.get("offset", 0.0)),
        work=work(form, rows, width),
        bound="memory",
        differentiable=(0, 1) if form == "add_rms_norm" else (0,),
        others={"Liger": partial(of_liger, form)},
    )


FORMS: tuple[Form, ...] = ("rms_norm", "add_rms_norm", "rms_norm_add")


def typical(small: bool) -> list[Case]:
    shape = (9, 48) if small else (4096, 2048)
    return [case(*shape, form) for form in FORMS]


def edges(small: bool, device_type: str) -> list[Case]:
    rows, width = (3, 20) if small else (1001, 2000)
    variants: list[Callable[[Form], Case]] = [
        lambda form: case(rows, width, form, "odd width"),
        lambda form: case(0, width, form, "no rows"),
        lambda form: case(1, width, form, "one row"),
    ]
    cases = [variant(form) for variant in variants for form in FORMS]
    cases += [case(rows, width, what="cast first", cast_first=True), case(rows, width, what="offset 1", offset=1.0)]
    return cases if small else [*cases, case(64, 16_384, what="[64, 16384]"), case(50_000, 128, what="[50000, 128]")]


def large() -> Large:
    rows, width = 2**19 + 1024, 4096
    memory = 8 * 2 * rows * width
    return Large(case(rows, width), case(TAIL, width), last_rows("x"), ("x",), memory)


def benchmarks(model: Model, tokens: int) -> list[Case]:
    return [case(tokens, model.width, form) for form in FORMS]
