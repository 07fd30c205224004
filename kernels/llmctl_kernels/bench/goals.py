"""What the kernels are meant to reach, and whether the rows show it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from llmctl_kernels.bench import cpu, gpu
from llmctl_kernels.bench.rows import MIB, Row

LIGER = "Liger"
FA3_FORWARD, FA3_BACKWARD = 616.0, 561.0
"""TFLOP/s on an H100 at head size 128, causal, 16,384 tokens (arXiv 2407.08608, figures 5 and 6)."""
OF_FA3 = 0.60
OF_COPY = 0.80
LEAST_MOVED = 256 * MIB
"""Problems that move less are over before the memory is at its full rate."""
MEMORY_BOUND = ("rms_norm", "qk_norm_rope", "swiglu")


@dataclass(frozen=True)
class Goal:
    text: str
    status: Literal["met", "missed", "not measured"]
    worst: float | None = None
    """The measured number that is furthest from the goal."""
    where: str = ""


def goals(rows: Sequence[Row]) -> list[Goal]:
    head = [row for row in rows if row.kernel == "linear_cross_entropy"]
    on_gpu, on_cpu = [row for row in head if row.device != "cpu"], [row for row in head if row.device == "cpu"]
    attention = [row for row in rows if row.model == gpu.PUBLISHED and row.implementation == gpu.OURS]
    name = "linear + cross-entropy"
    return [
        at_most(f"{name}: at most 1/4 of plain torch's memory", 0.25, against(on_gpu, gpu.OURS, gpu.PLAIN, memory)),
        at_least(f"{name}: at least 95 % of plain torch's speed", 0.95, against(on_gpu, gpu.PLAIN, gpu.OURS, time)),
        at_least(f"{name}: faster than Liger-Kernel", 1.0, against(on_gpu, LIGER, gpu.OURS, time)),
        at_least(
            f"attention: at least 60 % of {FA3_FORWARD:.0f} TFLOP/s forward",
            OF_FA3,
            [(row.forward_rate / FA3_FORWARD, row.case) for row in attention if row.forward_rate is not None],
        ),
        at_least(
            f"attention: at least 60 % of {FA3_BACKWARD:.0f} TFLOP/s backward",
            OF_FA3,
            [(row.backward_rate / FA3_BACKWARD, row.case) for row in attention if row.backward_rate is not None],
        ),
        *(at_least(f"{kernel}: at least 80 % of a copy's bandwidth", OF_COPY, shares(rows, kernel)) for kernel in MEMORY_BOUND),
        at_most(f"{name} on a CPU: at most 1/4 of plain torch's memory", 0.25, against(on_cpu, cpu.CHUNKED, cpu.PLAIN, memory)),
        at_least(f"{name} on a CPU: not slower than plain torch", 1.0, against(on_cpu, cpu.PLAIN, cpu.CHUNKED, time)),
    ]


Found = list[tuple[float, str]]
"""Numbers, and where they were measured."""


def memory(row: Row) -> float | None:
    return row.memory


def time(row: Row) -> float | None:
    return row.both


def against(rows: Iterable[Row], one: str, other: str, what: Callable[[Row], float | None]) -> Found:
    """`what` of implementation `one` over that of `other`, wherever both were measured."""
    by_place: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in rows:
        if value := what(row):
            by_place.setdefault((row.model, row.case, row.dtype), {})[row.implementation] = value
    places = ((" ".join(filter(None, place)), values) for place, values in by_place.items())
    return [(values[one] / values[other], place) for place, values in places if one in values and other in values]


def shares(rows: Iterable[Row], kernel: str) -> Found:
    """Of a copy's bandwidth, forward and with backward."""
    ours = [row for row in rows if (row.kernel, row.implementation) == (kernel, gpu.OURS) and row.moved >= LEAST_MOVED]
    values = [(value, f"{row.model} {row.case}") for row in ours for value in (row.forward_share, row.both_share)]
    return [(value, where) for value, where in values if value is not None]


def at_most(text: str, limit: float, found: Found) -> Goal:
    if not found:
        return Goal(text, "not measured")
    worst, where = max(found)
    return Goal(text, "met" if worst <= limit else "missed", worst, where)


def at_least(text: str, limit: float, found: Found) -> Goal:
    if not found:
        return Goal(text, "not measured")
    worst, where = min(found)
    return Goal(text, "met" if worst >= limit else "missed", worst, where)


def line(goal: Goal) -> str:
    worst = "" if goal.worst is None else f"{goal.worst:.2f} at {goal.where}"
    return f"{goal.status:12}  {goal.text:62}  {worst}".rstrip()
