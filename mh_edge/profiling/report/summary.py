"""The table: a line for each row with all that was measured, each number with its unit and its doubt."""

from __future__ import annotations

from mh_edge.profiling.report import placement, verdict
from mh_edge.profiling.report.entries import Entry, first_timed, span, time
from mh_edge.profiling.report.html import NOTHING, Child, Element, e, foreign
from mh_edge.profiling.result import Ratio
from mh_edge.units import digits, human_bytes, percent, portion

COLUMNS = (
    "File and device", "Median", "p90", "p99", "Time ratio", "Throughput", "Load", "First run", "Memory", "File size",
    "Placement", "Numbers",
)  # fmt: skip

NUMBERS = frozenset({"Median", "p90", "p99", "Time ratio", "Throughput", "Load", "First run", "Memory", "File size"})
"""Columns whose cells are never broken."""

FINE = 1e-3
"""What float32 may differ by; numbers that differ more are not the same ones, though they may be allowed."""


def section(rows: tuple[Entry, ...]) -> Element:
    """The table, which the style sheet turns into cards where the page is narrow; the roles keep it a table there."""
    first = first_timed(rows)
    head = e("tr", *(e("th", name, scope="col", role="columnheader") for name in COLUMNS), role="row")
    lines = [_line(one, one is first) for one in rows]
    return e(
        "section",
        e("h2", "Summary"),
        e(
            "table",
            e(
                "caption",
                "Times are of one call; the range beneath a number is where it would lie in 95 of 100 such runs.",
            ),
            e("thead", head, role="rowgroup"),
            e("tbody", *lines, role="rowgroup"),
            class_="summary",
            role="table",
        ),
        id="summary",
    )


def _line(one: Entry, is_first: bool) -> Element:
    row, found = one.row, one.row.latency
    state = "" if one.sound else "suspect"
    title = e(
        "th", one.shown(), e("small", foreign(row.runtime)) if row.runtime else None, scope="row", role="rowheader"
    )
    if row.failure is not None:
        words = (e("b", verdict.kind(one), class_="bad"), ", so it was not timed. ", e("a", "Why", href="#problems"))
        return e(
            "tr", title, e("td", *words, class_="wide", role="cell", colspan=len(COLUMNS) - 1), role="row", class_=state
        )
    cells: list[tuple[Child, ...]] = [
        _mean(one)
        if found is None
        else (e("b", time(found.p50)), e("small", span(*found.interval)), _unsteady(found.steady)),
        (time(None if found is None else found.p90),),
        (time(None if found is None else found.p99),),
        _ratio(row.ratio, is_first),
        _throughput(one),
        (time(row.load_ms),),
        (time(row.first_ms),),
        (NOTHING if row.memory is None else human_bytes(row.memory),),
        (NOTHING if row.bytes is None else human_bytes(row.bytes),),
        _placement(one),
        _numbers(one),
    ]
    named = [
        e("td", *cell, data_label=name, role="cell", class_="n" if name in NUMBERS else None)
        for name, cell in zip(COLUMNS[1:], cells, strict=True)
    ]
    return e("tr", title, *named, role="row", class_=state or None)


def _mean(one: Entry) -> tuple[Child, ...]:
    mean = one.row.mean_ms
    return (NOTHING,) if mean is None else (time(mean), e("small", "mean"))


def _unsteady(steady: bool | None) -> Element | None:
    return None if steady is not False else e("small", "never steady", class_="warn")


def _ratio(ratio: Ratio | None, is_first: bool) -> tuple[Child, ...]:
    if is_first:
        return ("1", e("small", "the first"))
    if ratio is None:
        return (NOTHING,)
    interval = e("small", f"{digits(ratio.interval[0])} to {digits(ratio.interval[1])}")
    if ratio.differs:
        return (e("b", f"×{digits(ratio.ratio)}"), interval)
    return (f"×{digits(ratio.ratio)}", interval, e("small", "within the noise", class_="tag"))


def _throughput(one: Entry) -> tuple[Child, ...]:
    timed = one.latency is not None if one.row.latency is not None else bool(one.row.mean_ms)
    value = one.row.throughput if timed else None
    if value is None:
        return (NOTHING,)
    batch = one.row.batch
    return (f"{digits(value)}/s", e("small", f"{batch} samples a call") if batch != 1 else None)


def _placement(one: Entry) -> tuple[Child, ...]:
    if one.row.placement is None:
        return (e("span", "not told", class_="dim"),)
    words = placement.share(one.row.placement)
    return (verdict.kind(one), e("small", words)) if one.row.fell_back else (words,)


def _numbers(one: Entry) -> tuple[Child, ...]:
    agreement = one.row.agreement
    if agreement is None:
        return (NOTHING,)
    if agreement.equal is None:
        return (e("span", "not compared", class_="dim"), e("small", foreign(agreement.why)) if agreement.why else None)
    reference = foreign(agreement.reference)
    allowed = "" if agreement.allowed is None else f" ({portion(agreement.allowed)} allowed)"
    off = None if agreement.error is None else f"off by {percent(agreement.error)} of the largest number{allowed}"
    if not agreement.equal:
        return (e("b", "WRONG, not as ", reference, class_="bad"), None if off is None else e("small", off))
    if agreement.reference == one.row.device:
        return ("is the reference",)
    if agreement.error == 0:
        return ("exactly as ", reference)
    if agreement.error is not None and agreement.error > FINE:
        return (off, e("small", "beside ", reference))
    return ("as ", reference, None if agreement.error is None else e("small", f"error {agreement.error:.1e}"))
