"""Time and memory of one implementation on a GPU, and the chip's ceilings."""

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch

from llmctl_kernels.bench.rows import GIB, Ceilings, Row
from llmctl_kernels.cases.case import Case, Implementation, Work
from llmctl_kernels.check.measure import cotangents, seeded

SPREAD = 0.02
"""Repetitions end when the quartiles are this close to each other, as a share of the median."""
LEAST_RUNS, MOST_RUNS = 10, 200
WARM_UP = 3


class Stopwatch:
    """Median times on a GPU, between events; `seconds` is what it spends on one at most."""

    def __init__(self, device: torch.device, seconds: float) -> None:
        self.seconds = seconds
        # far above any L2 cache; and writing it takes longer than Python takes to launch what is measured
        self.flush = torch.empty(GIB, dtype=torch.int8, device=device)

    def median(self, function: Callable[[], object]) -> float:
        """Seconds. Each run finds the L2 cache cold, as in a training step."""
        for _ in range(WARM_UP):
            function()
        torch.cuda.synchronize()
        times: list[float] = []
        end = time.perf_counter() + self.seconds
        while len(times) < MOST_RUNS:
            times.append(self.once(function))
            if len(times) >= LEAST_RUNS and (spread(times) < SPREAD or time.perf_counter() > end):
                break
        return statistics.median(times)

    def once(self, function: Callable[[], object]) -> float:
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        self.flush.zero_()
        start.record()
        function()
        stop.record()
        stop.synchronize()
        return start.elapsed_time(stop) / 1e3


def spread(times: list[float]) -> float:
    low, middle, high = statistics.quantiles(times, n=4)
    return (high - low) / middle


def ceilings(stopwatch: Stopwatch, device: torch.device) -> Ceilings:
    """A copy of 1 GiB, which reads and writes it, and a bf16 product of 8192^3."""
    source = torch.empty(GIB, dtype=torch.int8, device=device)
    target = torch.empty_like(source)
    copied = stopwatch.median(lambda: target.copy_(source))
    size = 8192
    left, right = torch.randn(2, size, size, device=device, dtype=torch.bfloat16)
    multiplied = stopwatch.median(lambda: left @ right)
    return Ceilings(2 * GIB / copied, 2 * size**3 / multiplied)


def measured(case: Case, implementation: Implementation, row: Row, stopwatch: Stopwatch, chip: Ceilings) -> Row:
    """`row` with times, rates and memory. Runs out of memory, or breaks, as the implementation does."""
    device = stopwatch.flush.device
    inputs = case.inputs(device, torch.bfloat16, seeded(device))
    leaves = {name: tensor.requires_grad_(name in case.wants_gradient) for name, tensor in inputs.items()}
    wanted = [leaves[name] for name in case.wants_gradient]

    def forward() -> tuple[torch.Tensor, ...]:
        return implementation(**leaves)

    gradients = cotangents(case, forward(), torch.bfloat16)

    def both() -> object:
        outputs = forward()
        return torch.autograd.grad([outputs[index] for index in case.differentiable], wanted, gradients)

    both()  # compiles, and allocates what stays
    collected()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    both()
    memory = torch.cuda.max_memory_allocated() - before
    of_forward, of_both = stopwatch.median(forward), stopwatch.median(both)
    return rated(replace(row, forward=of_forward, both=of_both, memory=memory), case, chip)


def collected() -> None:
    gc.collect()
    torch.cuda.empty_cache()


def rated(row: Row, case: Case, chip: Ceilings) -> Row:
    """`row` with its rates and shares, from its times."""
    assert row.forward is not None
    assert row.both is not None
    forward, both, ceiling, unit = scale(case.work, case.bound == "memory", chip)
    backward = row.both - row.forward
    return replace(
        row,
        unit=unit,
        forward_rate=forward / row.forward / 1e12,
        both_rate=both / row.both / 1e12,
        backward_rate=(both - forward) / backward / 1e12 if backward > 0 else None,
        forward_share=forward / row.forward / ceiling,
        both_share=both / row.both / ceiling,
        moved=case.work.bytes_forward,
    )


def scale(work: Work, in_bytes: bool, chip: Ceilings) -> tuple[int, int, float, str]:
    """(amount forward, amount of both, the chip's ceiling, unit)."""
    if in_bytes:
        return work.bytes_forward, work.bytes_both, chip.bytes_per_second, "TB/s"
    return work.operations_forward, work.operations_both, chip.operations_per_second, "TFLOP/s"
