"""What a case is, the work that it is, and the models whose shapes are measured."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal

import torch
from torch import Tensor

from llmctl_kernels.names import KernelName

Tensors = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Implementation = Callable[..., Outputs]

TAIL = 512
"""Rows at the end of a large problem that are computed again by themselves."""


class Unavailable(Exception):
    """Why an implementation cannot run here."""


@dataclass(frozen=True)
class Work:
    """The least that has to be done, for elements of 16 bits: bytes read and written, and floating-point operations.

    Operands are read once and results written once; nothing is counted that is computed a second time. `both` is forward
    and backward.
    """

    bytes_forward: int
    bytes_both: int
    operations_forward: int
    operations_both: int


@dataclass(frozen=True)
class Case:
    """One kernel at one shape.

    `inputs(device, dtype, generator)` makes the tensors; `fused`, `plain` and `others` take them by name. `exact` is plain
    mathematics that keeps whatever precision its inputs have: with float64 it is the truth for the others.
    """

    kernel: KernelName
    description: str
    inputs: Callable[[torch.device, torch.dtype, torch.Generator], Tensors]
    wants_gradient: tuple[str, ...]
    fused: Implementation
    plain: Implementation
    exact: Implementation
    work: Work
    bound: Literal["memory", "compute"]
    """What limits it on a GPU, hence whether bytes or operations per second tell how good it is."""
    differentiable: tuple[int, ...] = (0,)
    """The outputs that have gradients."""
    others: Mapping[str, Callable[[], Implementation]] = field(default_factory=dict)
    """Other implementations by name. To load one raises `ImportError` or `Unavailable` where it cannot run."""


@dataclass(frozen=True)
class Large:
    """A problem of more than 2^31 elements whose last `TAIL` rows are a problem of their own."""

    case: Case
    tail_case: Case
    tail: Callable[[Tensors], Tensors]
    """Inputs of the whole -> inputs of `tail_case`."""
    row_gradients: tuple[str, ...]
    memory: int
    """Bytes of GPU memory that forward and backward take."""
    row_outputs: tuple[int, ...] = (0,)


def last_rows(*names: str) -> Callable[[Tensors], Tensors]:
    """The tail of problems whose rows know nothing of each other: the last rows of the inputs `names`, and the others whole."""
    return lambda inputs: {name: tensor[-TAIL:].clone() if name in names else tensor for name, tensor in inputs.items()}


def liger() -> Any:
    """Liger-Kernel's functions (arXiv 2410.10989)."""
    return import_module("liger_kernel.transformers.functional")


@dataclass(frozen=True)
class Model:
    """Shapes of an Olmo 3."""

    name: str
    width: int
    heads: int
    head_size: int
    feed_forward: int


MODELS = {
    model.name: model
    for model in (Model("190M", 768, 12, 64, 3072), Model("1B", 2048, 16, 128, 8192), Model("7B", 4096, 32, 128, 11008))
}
VOCABULARY = 100_352
WINDOW = 4096
TOKENS = (8_192, 65_536)


def document_lengths(tokens: int, median: int = 800, seed: int = 0) -> tuple[int, ...]:
    """Lengths of packed documents, log-normal as text from the web is; the last one is cut off."""
    draw = random.Random(seed)
    lengths = []
    while (rest := tokens - sum(lengths)) > 0:
        lengths.append(min(rest, max(1, round(median * draw.lognormvariate(0, 1)))))
    return tuple(lengths)


def normal(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    return torch.randn(shape, device=device, dtype=dtype, generator=generator)
