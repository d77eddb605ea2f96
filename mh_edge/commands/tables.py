"""How artifacts and verdicts are shown to people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from mh_edge.signature import Tensor
from mh_edge.units import human_bytes as human_bytes
from mh_edge.units import percent as percent
from mh_edge.units import score as score

if TYPE_CHECKING:
    from rich.console import Console


def show(console: Console, headers: Sequence[str], rows: Sequence[Sequence[str]], *, whole: Sequence[str] = ()) -> None:
    """Print a table without vertical lines, empty columns and trailing blanks; without a head where the headers are
    empty. whole: headers of columns whose cells are not broken.
    """
    from rich import box
    from rich.table import Table

    used = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_header=any(headers))
    for column in used:
        table.add_column(
            headers[column], overflow="fold", no_wrap=headers[column] in whole
        )  # half a tensor's name is none
    for row in rows:
        table.add_row(*(row[column] for column in used))
    with console.capture() as printed:
        console.print(table)
    console.out("\n".join(line.rstrip() for line in printed.get().splitlines()), highlight=False)


def counts(numbers: Mapping[str, int]) -> str:
    """{"MatMul": 4, "Add": 1} -> "MatMul×4, Add"; without a blank, at which lines would be broken."""
    return ", ".join(name if number == 1 else f"{name}×{number}" for name, number in numbers.items())


def tensor(item: Tensor) -> str:
    """`x: float32 (batch, sequence, 8)`."""
    return f"{item.name}: {item.dtype} ({', '.join(map(str, item.shape))})"


def verdict(verified: Mapping[str, Any] | None) -> str:
    """One line on the figures of a verification."""
    if verified is None:
        return "NOT VERIFIED"
    word = "equal" if verified["passed"] else "NOT EQUAL"
    skipped = f", {verified['skipped']} skipped (Keras refuses them)" if verified.get("skipped") else ""
    unsure = (
        f", {verified['inconclusive']} unsure (float32 is too uncertain there)" if verified.get("inconclusive") else ""
    )
    error = number(verified["required_tolerance"]["abs"])
    scale = f", outputs up to {shown_scale(verified['scale'])}" if "scale" in verified else ""
    return f"{word} on {verified['feeds']} feeds{skipped}{unsure}; error up to {error}{scale}"


def loss(quantized: Mapping[str, Any]) -> str:
    """One line on what a quantization lost."""
    from mh_edge.quantization.judging.gate import Gate

    found, gate = quantized["metrics"], quantized["gate"]
    if found is None:
        return f"{quantized['scheme']}: made from a recipe, not measured"
    accuracy, agreement = found["accuracy"], found["top1_agreement"]
    shown = partial(score, share=found.get("share", True))
    parts = [
        "" if accuracy is None else f"{found['metric']} {shown(accuracy)} (float {shown(found['accuracy_float'])})",
        "" if agreement is None else f"same answer {score(agreement)}",
        f"signal to noise {shown_scale(found['sqnr_db'])} dB",
    ]
    passed = "" if gate is None else f"; gate {Gate.from_json(gate)}"
    return f"{quantized['scheme']}: {', '.join(filter(None, parts))} on {found['on']}{passed}"


def proof_notes(verified: Mapping[str, Any] | None) -> tuple[str, ...]:
    """What the proof says beside its figures."""
    return () if verified is None else tuple(verified.get("notes", ()))


def shown_scale(value: float | str) -> str:
    """How large outputs get, beside which an error is large or small."""
    return f"{value:.2g}" if isinstance(value, float | int) else value


def number(value: float | int | str | None) -> str:
    """Two digits are enough to compare errors by."""
    return f"{value:.1e}" if isinstance(value, float) else str(value)
