"""One problem per kernel and shape, as `python -m llmctl_kernels.check` and `python -m llmctl_kernels.bench` see it.

Each module here stands for one kernel and offers

- `typical(small)`: the shapes at which accuracy, repetition, compilation and registration are checked,
- `edges(small, device_type)`: shapes at which kernels break,
- `large()`: one problem of more than 2^31 elements,
- `benchmarks(model, tokens)`: the shapes of a model.

`small` is for Triton's interpreter. No kernel is imported before it runs.
"""

from importlib import import_module
from typing import Protocol, cast

from llmctl_kernels.cases.case import Case, Large, Model
from llmctl_kernels.names import KernelName


class Cases(Protocol):
    """What each module of this package offers."""

    def typical(self, small: bool) -> list[Case]: ...

    def edges(self, small: bool, device_type: str) -> list[Case]: ...

    def large(self) -> Large: ...

    def benchmarks(self, model: Model, tokens: int) -> list[Case]: ...


def cases_of(kernel: KernelName) -> Cases:
    return cast(Cases, import_module(f"llmctl_kernels.cases.{kernel}"))
