"""How sizes and times are written, wherever they are told."""


def gib(count: float) -> str:
    """Bytes in GiB, without the unit: 1610612736 -> 1.50"""
    return f"{count / 2**30:,.2f}"


def lasted(seconds: float) -> str:
    """A time that was measured, or is left: 3725 -> 1 h 02 min"""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def about(seconds: float) -> str:
    """A time that is estimated, to its first decimal: 3725 -> 62.1 min"""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"
