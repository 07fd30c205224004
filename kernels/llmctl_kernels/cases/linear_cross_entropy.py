"""Output head and cross entropy with z-loss: `hidden [N, D]`, `weight [V, D]`, `labels [N]` -> two scalars."""

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from llmctl_kernels.cases.case import (
    TAIL,
    VOCABULARY,
    Case,
    Implementation,
    Large,
    Model,
    Outputs,
    Tensors,
    Work,
    last_rows,
    liger,
    normal,
)

Z_LOSS = 1e-4
IGNORED = -100


def fused(hidden: Tensor, weight: Tensor, labels: Tensor, in_triton: bool = True) -> Outputs:
    from llmctl_kernels.linear_cross_entropy import linear_cross_entropy

    return linear_cross_entropy(hidden, weight, labels, Z_LOSS, hidden.dtype, in_triton)


def plain(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
    from llmctl_kernels.linear_cross_entropy import plain_linear_cross_entropy

    return plain_linear_cross_entropy(hidden, weight, labels, Z_LOSS, hidden.dtype)


def exact(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
    logits = hidden @ weight.T
    kept = labels != IGNORED
    log_partition = torch.logsumexp(logits, -1)
    z_loss = Z_LOSS * (log_partition.square() * kept).sum()
    return functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum") + z_loss, z_loss


def of_liger() -> Implementation:
    function = liger().liger_fused_linear_cross_entropy

    def call(hidden: Tensor, weight: Tensor, labels: Tensor) -> Outputs:
        options = {"lse_square_scale": Z_LOSS, "reduction": "sum", "accum_dtype": torch.float32}
        return (function(hidden, weight, labels, **options),)

    return call


def work(rows: int, width: int, vocabulary: int) -> Work:
    """The product with the head's weight forward, and one each for the gradients of hidden states and weight."""
    product = 2 * rows * width * vocabulary
    operands = 2 * width * (rows + vocabulary)
    return Work(operands, 3 * operands, product, 3 * product)


def case(rows: int, width: int, vocabulary: int, ignored: float = 0.1, in_triton: bool = True, what: str = "") -> Case:
    """`ignored`: the share of the labels that are ignored."""

    def inputs(device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensors:
        weight = normal((vocabulary, width), device, dtype, generator).mul_(2 * width**-0.5)
        labels = torch.randint(vocabulary, (rows,), device=device, generator=generator)
        dropped = torch.rand(rows, device=device, generator=generator) < ignored
        hidden = normal((rows, width), device, dtype, generator)
        return {"hidden": hidden, "weight": weight, "labels": labels.masked_fill(dropped, IGNORED)}

    form = "" if in_triton else ", chunked in torch"
    return Case(
        kernel="linear_cross_entropy",
        description=what or f"[{rows}, {width}] x {vocabulary}{form}",
        inputs=inputs,
        wants_gradient=("hidden", "weight"),
        fused=partial(fused, in_triton=in_triton),
        plain=plain,
        exact=exact,
        work=work(rows, width, vocabulary),
        bound="compute",
        others={"chunked torch": lambda: partial(fused, in_triton=False), "Liger": of_liger},
    )


def typical(small: bool) -> list[Case]:
    shape = (24, 32, 70) if small else (2048, 1024, 50_304)
    return [case(*shape), case(*shape, in_triton=False)]


def edges(small: bool, device_type: str) -> list[Case]:
    rows, width, vocabulary = (5, 24, 37) if small else (1000, 512, 32_000)
    return [
        case(rows, width, vocabulary, ignored=2.0, what="all labels ignored"),
        case(rows, width, vocabulary + 1, what="odd vocabulary"),
        case(rows, width + 8, vocabulary, what="odd width"),
        case(1, width, vocabulary, ignored=0.0, what="one row"),
        case(0, width, vocabulary, what="no rows"),
        case(0, width, vocabulary, in_triton=False, what="no rows, chunked in torch"),
    ]


def large() -> Large:
    """2^31 elements in the hidden states, and twice as many logits."""
    rows, width, vocabulary = 2**19 + 1024, 4096, 8192
    tail_case = case(TAIL, width, vocabulary, ignored=0.0)
    whole = case(rows, width, vocabulary, ignored=0.0)
    return Large(whole, tail_case, last_rows("hidden", "labels"), ("hidden",), 6 * 2 * rows * width, row_outputs=())


def benchmarks(model: Model, tokens: int) -> list[Case]:
    return [case(tokens, model.width, VOCABULARY, ignored=0.0)]
