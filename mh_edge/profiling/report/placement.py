"""The placement map: what part of each file ran on the device, in how many pieces, and which operations did not, and
why.
"""

from __future__ import annotations

from mh_edge.profiling.report.entries import Entry, listed
from mh_edge.profiling.report.html import NOTHING, Element, e, foreign
from mh_edge.runtimes.placement import Fallback, Placement
from mh_edge.units import portion

MOST_PIECES = 60
"""Beyond so many pieces their number says more than a bar cut into them."""

NAMES = 6
"""Of nodes that fell back; the others are counted."""


def section(rows: tuple[Entry, ...]) -> Element | None:
    """A bar for each row whose runtime tells where it ran; those that did not run on their device first."""
    known = [one for one in rows if one.row.placement is not None and one.row.placement.nodes > 0]
    silent = [one.label for one in rows if one not in known and one.row.failure is None]
    if not known:
        return None
    broken = any(one.row.fell_back for one in known)
    lead = (
        "A bar is all nodes of a file: blue ran on the device asked for, cut into as many pieces as it was handed "
        "(their number; not how long each is); striped ran elsewhere."
        if broken
        else "Every node that the runtimes tell of ran on the device it was asked to run on."
    )
    ordered = sorted(known, key=lambda one: not one.row.fell_back)
    proofs: dict[str, list[str]] = {}
    for one in known:
        if one.row.placement is not None and one.row.placement.proof:
            proofs.setdefault(one.row.placement.proof, []).append(one.row.device)
    told = "; ".join(f"{listed(dict.fromkeys(devices))}: {proof}" for proof, devices in proofs.items())
    return e(
        "section",
        e("h2", "Placement"),
        e("p", lead, class_="lead"),
        e("div", *(_bar(one, one.row.placement) for one in ordered if one.row.placement is not None), class_="bars"),
        e("p", "What says so: ", foreign(told), ".", class_="note") if told else None,
        e("p", f"Their runtimes do not tell: {listed(silent)}.", class_="note") if silent else None,
        id="placement",
    )


def share(placement: Placement) -> str:
    """On the device: "12 of 40 nodes in 3 partitions"."""
    if not placement.nodes:
        return NOTHING
    parts = placement.partitions
    pieces = (
        f" in {parts} partition{'s' if parts != 1 else ''}"
        if parts > 1 or 0 < placement.on_device < placement.nodes
        else ""
    )
    nodes = (
        f"all {placement.nodes}"
        if placement.whole and placement.nodes > 1
        else f"{placement.on_device} of {placement.nodes}"
    )
    return f"{nodes} node{'s' if placement.nodes != 1 else ''}{pieces}"


def _bar(one: Entry, placement: Placement) -> Element:
    told = sum(fallback.count for fallback in placement.fallbacks)
    untold = placement.nodes - placement.on_device - told
    parts = [*_pieces(placement), *map(_elsewhere, placement.fallbacks)]
    if untold > 0:
        parts.append(_part("away", untold, f"{untold}", f"{untold} nodes elsewhere; the runtime does not tell which"))
    words = f"{one.label}: {share(placement)}"
    time = (
        f"; {portion(one.row.time_share)} of the time of all operations"
        if one.row.time_share is not None and not placement.whole
        else None
    )
    return e(
        "div",
        e("div", one.shown(), e("span", share(placement), time, class_="figures"), class_="label"),
        e(
            "div",
            e("div", *parts, class_="bar", role="img", aria_label=words),
            _reasons(placement) if placement.fallbacks else None,
            class_="track",
        ),
        class_="lane whole" if placement.whole else "lane",
    )


def _pieces(placement: Placement) -> list[Element]:
    if placement.on_device <= 0:
        return []
    count = placement.partitions if 1 <= placement.partitions <= MOST_PIECES else 1
    words = f"{placement.on_device} of {placement.nodes} nodes on the device, in {placement.partitions} partitions"
    written = ["" if placement.whole else f"{placement.on_device} on the device", *[""] * (count - 1)]
    return [_part("here", placement.on_device / count, text, words) for text in written]


def _elsewhere(fallback: Fallback) -> Element:
    words = f"{fallback.count} {fallback.op} on {fallback.where}" + (f": {fallback.reason}" if fallback.reason else "")
    return _part("away", fallback.count, f"{fallback.op} {fallback.count}", words)


def _part(kind: str, size: float, text: str, words: str) -> Element:
    """Its text shows where it fits, and not at all where it would be cut."""
    written = [e("i"), e("span", foreign(text))] if text else []
    return e("div", *written, class_=f"part {kind}", style=f"flex-grow:{max(size, 0):.5g}", title=words)


def _reasons(placement: Placement) -> Element:
    """A line for each operation that ran elsewhere."""
    lines = [
        e(
            "li",
            e("b", foreign(one.op), f" ×{one.count}" if one.count > 1 else None),
            " ran on ",
            foreign(one.where),
            *((": ", foreign(one.reason)) if one.reason else ("; the runtime gives no reason",)),
            e("small", *names) if (names := _names(one)) else None,
        )
        for one in placement.fallbacks
    ]
    return e("ul", *lines, class_="reasons")


def _names(fallback: Fallback) -> list[Element | str]:
    named = [name for name in fallback.nodes if name]
    rest = fallback.count - len(named[:NAMES])
    parts: list[Element | str] = []
    for name in named[:NAMES]:
        parts += [", " if parts else "", foreign(name)]
    if named and rest > 0:
        parts.append(f" and {rest} more")
    return parts
