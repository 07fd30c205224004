"""The kernels on a GPU, at the shapes of models, against plain torch, `torch.compile` of it, and libraries."""

from collections.abc import Callable, Iterator, Sequence

import torch

from llmctl_kernels.bench.measure import Ceilings, Stopwatch, collected, measured
from llmctl_kernels.bench.rows import Row
from llmctl_kernels.cases import cases_of
from llmctl_kernels.cases.case import MODELS, Case, Implementation, Unavailable
from llmctl_kernels.check.checks import in_words
from llmctl_kernels.names import KernelName

OURS, PLAIN, COMPILED = "ours", "plain torch", "torch.compile"
PUBLISHED = "published"
"""In place of a model: the shape of FlashAttention-3's published rates."""


def problems(kernel: KernelName, models: Sequence[str], tokens: Sequence[int]) -> Iterator[tuple[str, int, Case]]:
    """(model, tokens, case)."""
    if kernel == "packed_attention":
        from llmctl_kernels.cases.packed_attention import PUBLISHED_LENGTH, published

        yield PUBLISHED, PUBLISHED_LENGTH, published()
    for name in models:
        for count in tokens:
            for case in cases_of(kernel).benchmarks(MODELS[name], count):
                yield name, count, case


def implementations(case: Case) -> dict[str, Callable[[], Implementation]]:
    def compiled() -> Implementation:
        if case.kernel == "packed_attention":
            raise Unavailable("would be compiled for each document's length")
        torch._dynamo.reset()  # a graph per case, and not one for all sizes
        return torch.compile(case.plain, dynamic=False)

    return {OURS: lambda: case.fused, PLAIN: lambda: case.plain, COMPILED: compiled, **case.others}


def gpu_rows(
    kernel: KernelName, models: Sequence[str], tokens: Sequence[int], stopwatch: Stopwatch, chip: Ceilings
) -> Iterator[Row]:
    for model, count, case in problems(kernel, models, tokens):
        for name, load in implementations(case).items():
            row = Row(kernel, model, case.description, name, torch.cuda.get_device_name(), tokens=count)
            yield attempted(case, load, row, stopwatch, chip)
            collected()


def attempted(case: Case, load: Callable[[], Implementation], row: Row, stopwatch: Stopwatch, chip: Ceilings) -> Row:
    """The row with its numbers, or with the reason why it has none: one that fails must not end the others."""
    note = ""
    try:
        return measured(case, load(), row, stopwatch, chip)
    except ImportError:
        note = "not installed"
    except (Unavailable, torch.OutOfMemoryError) as error:
        note = in_words(error)
    except Exception as error:
        note = f"failed: {in_words(error)}"
    return Row(row.kernel, row.model, row.case, row.implementation, row.device, tokens=row.tokens, note=note)
