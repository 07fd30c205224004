"""How numbers are written on the page."""

import time

UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def lasted(seconds: float) -> str:
    """3725 -> 1 h 02 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def short(count: float) -> str:
    """1599488 -> 1.6M"""
    for size, letter in UNITS:
        if abs(count) >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:,.0f}"


def gib(count: float) -> str:
    return f"{count / 2**30:.2f} GiB"


def change(before: float, after: float) -> str:
    """As +3.1 %"""
    return f"{100 * (after - before) / before:+.1f} %" if before else ""


def clock(seconds: float | None) -> str:
    """Seconds since the epoch as local time."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def several(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
