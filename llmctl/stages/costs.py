"""What a stage costs: tokens a second, time, money, disk. On this machine's CPU its step is timed in parts, on random tokens; on
GPUs it is what rates and published efficiencies let expect."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from llmctl.errors import UserError
from llmctl.recipe.schema import Recipe
from llmctl.stages.bench import job_of_random_rows

Basis = Literal["timed here", "rough", "expected"]
"""A probe on this machine; this CPU's rate of products and an efficiency; rates of GPUs and an efficiency."""
BUDGET = 4.0
"""Seconds that timing a stage may take."""
SEEN = 4
"""Steps of random tokens that are made for it."""


@dataclass(frozen=True, slots=True)
class StageCost:
    tokens_per_second: float | None
    """Of all ranks; None: no rate is known of the machine."""
    basis: Basis | None
    mfu: float | None
    """A row taken for one document. None: the peak is not known, as of a CPU."""
    seconds: float | None
    """Of the training steps. None: the rate is not known, or the budget is in epochs."""
    dollars: float | None
    disk_left: int
    """Bytes of the finished stage."""
    disk_peak: int
    """Bytes while it runs."""


def cost_of(
    recipe: Recipe, task: Any, config: Any, tokens: int | None, steps: int | None, price: float | None, timed: bool
) -> StageCost:
    """The cost of a `Task` whose model has `config`. `price`: dollars of a rank's hour. Not `timed`: the disk alone."""
    from llmctl.preflight.disk import disk_of
    from llmctl.preflight.speed import flops_per_token

    step, basis = step_seconds(recipe, task, config) if timed else (None, None)
    speed = None if step is None else task.table.steps.rows * task.table.seq_len / step
    seconds = None if speed is None or tokens is None else tokens / speed
    peak, ranks = peak_of(task.machine), task.machine.ranks
    disk = disk_of(task.decoder, task.table, steps)
    return StageCost(
        tokens_per_second=speed,
        basis=basis,
        mfu=speed * flops_per_token(task.decoder, task.table.seq_len) / (peak * ranks) if speed and peak else None,
        seconds=seconds,
        dollars=None if seconds is None or price is None else seconds / 3600 * ranks * price,
        disk_left=disk.left,
        disk_peak=disk.peak,
    )


def peak_of(machine: Any) -> float | None:
    return machine.gpu.peak if machine.gpu is not None else None


def rates_of(task: Any) -> Any:
    """The `Rates` of a task's machine: by its GPU's data sheet, or the measured rate of products on this CPU. None: not known."""
    from llmctl.preflight.speed import expected_rates, in_bfloat16, rates_of_cpu

    machine = task.machine
    return expected_rates(task) if machine.on_gpu else rates_of_cpu(cpu_products(in_bfloat16(task)), machine.ranks)


def fastest_of(task: Any) -> Any:
    """The `Setting` that is expected to be the fastest of those that fit.

    Raises:
        UserError: no rate is known of the machine.
    """
    from llmctl.preflight.search import fastest
    from llmctl.preflight.speed import in_bfloat16

    rates = rates_of(task)
    if rates is not None:
        return fastest(task, rates)
    if task.machine.gpu is not None and not in_bfloat16(task):
        raise UserError(f"--fit: [{task.table.name}] has fp32 products, and rates of GPUs are known for bf16 alone")
    raise UserError(f"--fit: no rate of bf16 products is known of {task.machine.name}; name a GPU with --gpu, as --gpu h100")


def cpu_products(bfloat16: bool) -> float:
    """FLOP/s of a small product on this machine's CPU."""
    import torch

    from llmctl.train.devices import product_rate
    from llmctl.train.probe_step import SMALL_PRODUCT

    return product_rate(torch.bfloat16 if bfloat16 else torch.float32, SMALL_PRODUCT)


def step_seconds(recipe: Recipe, task: Any, config: Any) -> tuple[float | None, Basis | None]:
    """Seconds of a step, and how they were found."""
    from llmctl.preflight.speed import step_time

    rates = rates_of(task)
    if rates is None:
        return None, None
    rough = step_time(task, task.micro_batch, rates)
    if task.machine.on_gpu:
        return rough.seconds, "expected"
    timed = timed_here(recipe, task, config, rough)
    return (rough.seconds, "rough") if timed is None else (timed, "timed here")


def timed_here(recipe: Recipe, task: Any, config: Any, rough: Any) -> float | None:
    """Seconds of a step by a probe on this CPU, of which `rough` is the `StepTime`; None: it would take too long."""
    from llmctl.preflight.speed import passes_of
    from llmctl.train.data import TrainingRows
    from llmctl.train.probe_step import Subject, probe, trials_of

    ranks, rows = task.machine.ranks, task.micro_batch
    trials = trials_of(task, rows, rough.products / passes_of(task, rows), BUDGET)
    if not trials:
        return None
    with tempfile.TemporaryDirectory(prefix="llmctl-plan-") as folder, threads_of_a_rank(ranks):
        job = job_of_random_rows(recipe, task.table, SEEN, ranks, Path(folder))
        subject = Subject(job, TrainingRows(job), config, task, rows)
        return probe(subject, trials, BUDGET).step(subject)


@contextmanager
def threads_of_a_rank(ranks: int) -> Iterator[None]:
    """Torch with as many threads as each of so many ranks on this machine would have."""
    import torch

    from llmctl.train.distributed import threads_per_rank

    before = torch.get_num_threads()
    if ranks > 1:
        torch.set_num_threads(threads_per_rank(ranks))
    try:
        yield
    finally:
        torch.set_num_threads(before)
