"""What is measured: a row per kernel, shape and implementation, in a table and in JSON."""

from dataclasses import dataclass

GIB, MIB = 2**30, 2**20


@dataclass(frozen=True)
class Ceilings:
    """What the chip reaches by itself, measured beside the kernels: bytes per second of a copy, operations of a bf16 product."""

    bytes_per_second: float
    operations_per_second: float


@dataclass(frozen=True)
class Row:
    """One implementation at one shape. Times are medians, in seconds; `both` is forward and backward."""

    kernel: str
    model: str
    case: str
    implementation: str
    device: str
    dtype: str = "bfloat16"
    forward: float | None = None
    both: float | None = None
    memory: int | None = None
    """Bytes at the peak of forward and backward above what was allocated before."""
    unit: str = ""
    """"TB/s" or "TFLOP/s", by what limits the kernel."""
    forward_rate: float | None = None
    backward_rate: float | None = None
    both_rate: float | None = None
    forward_share: float | None = None
    """Share of the chip's ceiling, 0 to 1."""
    both_share: float | None = None
    moved: int = 0
    """Bytes that forward has to move at least."""
    tokens: int = 0
    note: str = ""
    """Why there are no numbers."""


COLUMNS = (("kernel", 21), ("model", 6), ("case", 58), ("implementation", 18), ("dtype", 9))
NUMBERS = ("forward ms", "both ms", "forward", "both", "unit", "share", "share", "memory")


def heading() -> str:
    return " ".join([*(f"{name:{width}}" for name, width in COLUMNS), *(f"{name:>10}" for name in NUMBERS)])


def line(row: Row) -> str:
    named = " ".join(f"{getattr(row, name):{width}.{width}}" for name, width in COLUMNS)
    if row.note:
        return f"{named} {row.note}"
    memory = "" if row.memory is None else f"{row.memory / MIB:.0f} MiB"
    numbers = (
        number(row.forward, "{:.3f}", 1e3),
        number(row.both, "{:.3f}", 1e3),
        number(row.forward_rate, "{:.2f}"),
        number(row.both_rate, "{:.2f}"),
        row.unit,
        number(row.forward_share, "{:.0%}"),
        number(row.both_share, "{:.0%}"),
        memory,
    )
    return " ".join([named, *(f"{text:>10}" for text in numbers)])


def number(value: float | None, form: str, factor: float = 1.0) -> str:
    return "" if value is None else form.format(value * factor)
