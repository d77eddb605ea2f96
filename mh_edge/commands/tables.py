"""How artifacts and verdicts are shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mh_edge.signature import Tensor

if TYPE_CHECKING:
    from rich.table import Table

UNITS = ("B", "kB", "MB", "GB")


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table without vertical lines; without a head where the headers are empty."""
    from rich import box
    from rich.table import Table

    made = Table(*headers, box=box.SIMPLE_HEAD, pad_edge=False, show_header=any(headers))
    for row in rows:
        made.add_row(*row)
    return made


def human_bytes(count: int) -> str:
    """1536 -> "1.5 kB": powers of 1000, as disks and networks count."""
    size, unit = float(count), 0
    while size >= 1000 and unit < len(UNITS) - 1:
        size, unit = size / 1000, unit + 1
    return f"{size:.0f} B" if unit == 0 else f"{size:.1f} {UNITS[unit]}"


def counts(numbers: Mapping[str, int]) -> str:
    """{"MatMul": 4, "Add": 1} -> "MatMul 4, Add"."""
    return ", ".join(name if number == 1 else f"{name} {number}" for name, number in numbers.items())


def tensor(item: Tensor) -> str:
    """`x: float32 (batch, sequence, 8)`."""
    return f"{item.name}: {item.dtype} ({', '.join(map(str, item.shape))})"


def verdict(verified: Mapping[str, Any] | None) -> str:
    """One line on the figures of a verification."""
    if verified is None:
        return "NOT VERIFIED"
    tolerance = verified["required_tolerance"]
    word = "equal" if verified["passed"] else "NOT EQUAL"
    return f"{word} on {verified['feeds']} feeds; needs abs {number(tolerance['abs'])}, rel {number(tolerance['rel'])}"


def number(value: float | int | str | None) -> str:
    """Two digits are enough to compare errors by."""
    return f"{value:.1e}" if isinstance(value, float) else str(value)
