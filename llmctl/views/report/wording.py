"""How numbers are written on the page, sizes and times apart (`llmctl.wording`)."""

import time

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def short(count: float) -> str:
    """1599488 -> 1.6M"""
    for size, letter in UNITS:
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:,.0f}"


def change(before: float, after: float) -> str:
    """As +3.1 %"""
    return f"{100 * (after - before) / before:+.1f} %" if before else ""


def clock(seconds: float | None) -> str:
    """Seconds since the epoch as local time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
