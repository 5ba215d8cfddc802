"""Write durations, counts, speeds and sizes for people to read."""

from __future__ import annotations


def duration_text(seconds: float) -> str:
    """Return a length of time: ``42 s``, ``7 min``, ``3 h 10 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def count_text(number: int) -> str:
    """Return a number of things: ``965``, ``12,340``, ``5.5 M``."""
    return f"{number:,}" if number < 100_000 else f"{number / 1e6:.1f} M"


def speed_text(per_second: float) -> str:
    """Return a speed with at least two digits: ``0.72``, ``7.2``, ``72``."""
    return f"{per_second:.{0 if per_second >= 10 else 1 if per_second >= 1 else 2}f}"


def size_text(num_bytes: float) -> str:
    """Return an amount of data: ``340 kB``, ``22 MB``, ``3.4 GB``."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.{1 if num_bytes < 10 * size else 0}f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
