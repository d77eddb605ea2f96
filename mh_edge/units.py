"""Numbers as people read them, with their units: on the terminal and in reports."""

from __future__ import annotations

import math

BYTES = ("B", "kB", "MB", "GB")
LEAST, MOST = 1e-4, 1e9
"""Numbers beyond these have so many zeros that an exponent is read sooner."""


def human_bytes(count: int) -> str:
    """1536 -> "1.5 kB": powers of 1000, as disks and networks count."""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(BYTES) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {BYTES[unit]}"


def duration(milliseconds: float) -> str:
    """0.0123 -> "12.3 µs", 1.234 -> "1.23 ms", 4321 -> "4.32 s": three digits."""
    size = abs(milliseconds)
    if 0 < size < 0.0995:
        return f"{digits(1e3 * milliseconds)} µs"
    return f"{digits(milliseconds)} ms" if size < 999.5 else f"{digits(milliseconds / 1e3)} s"


def digits(value: float) -> str:
    """Three digits, all of those before the point: 12345.6 -> "12,346", 12.345 -> "12.3", 0.01234 -> "0.0123"."""
    size = abs(value)
    if not math.isfinite(size) or 0 < size < LEAST or size >= MOST:
        return f"{value:.2e}"  # "nan" and "inf" too
    decimals = 0 if size == 0 else max(0, 2 - math.floor(math.log10(float(f"{size:.2e}"))))
    return f"{value:,.{decimals}f}"


def percent(value: float) -> str:
    """0.00012 -> "0.012%": two digits of what is small, one decimal of what is not."""
    return f"{100 * value:.2g}%" if abs(value) < 0.1 else f"{value:.1%}"


def portion(value: float) -> str:
    """Of a time, known to two digits at best: 0.3178 -> "32%", 0.0012 -> "0.12%", what is nearly all ">99%"."""
    if 0 < value < 1e-4:
        return "<0.01%"
    if 0.995 <= value < 1:
        return ">99%"
    return f"{100 * value:.0f}%" if value == 0 or value >= 0.0995 else f"{100 * value:.2g}%"


def score(value: float, share: bool = True) -> str:
    """Accuracy, or the mean of a metric, which need not be a share of 1: 0.93517 -> "93.52%", 0.999977 -> "99.9977%",
    with two digits of what is missing.
    """
    if not share:
        return f"{value:.4g}"
    missing = 100 * (1 - value)
    return f"{100 * value:.{max(2, 1 - math.floor(math.log10(missing))) if missing > 0 else 2}f}%"
