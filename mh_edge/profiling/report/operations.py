"""Time of each kind of operation, of each rule that made them, and of each head: one bar cut into its parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mh_edge.artifact import read_manifest
from mh_edge.profiling.operations import NO_RULE, OUTSIDE, Share, by_head, by_op, by_rule
from mh_edge.profiling.report.entries import GLUE, Entry, time
from mh_edge.profiling.report.html import NOTHING, Element, e, foreign
from mh_edge.profiling.report.svg import is_length
from mh_edge.runtimes.placement import OpTime
from mh_edge.units import portion

COLOURS = 12
"""So many colours can be told apart, by the colour-blind too, the last four by their dots; what is left is grey."""

PLAIN = 8
"""Colours without dots."""

LENGTHS_UP_TO = 4.0
"""Greatest / least total time up to which bars are as long as their times; beyond it the short ones could not be read,
and each is as long as the page.
"""

REST = "others"

NONE = frozenset((NO_RULE, OUTSIDE))
"""Parts that are no answer to what the bar is cut by: they get a grey of their own."""


@dataclass(frozen=True)
class Part:
    """Of a bar: what a share of the time went to, how long, in how many operations, and whether the device itself ran
    them.
    """

    name: str
    share: float
    ms: float
    time: str
    count: int
    here: bool = True


Cut = dict[str, list[Part]]
"""What a bar is cut by ("operation", "rule", "head") -> its parts."""


def section(rows: tuple[Entry, ...]) -> Element | None:
    """Bars for each row whose operations were timed; None where none were."""
    sound = [(one, _sound(one.row.ops)) for one in rows]
    timed = [(one, ops) for one, ops in sound if is_length(sum(op.ms for op in ops))]
    if not timed:
        return None
    totals = [sum(op.ms for op in ops) for _, ops in timed]
    longest = max(totals) if max(totals) <= LENGTHS_UP_TO * min(totals) else None
    cuts = [_cut(one, ops) for one, ops in timed]
    colours = {by: _colours(cut[by] for cut in cuts if by in cut) for by in ("operation", "rule", "head")}
    lengths = "Bars are as long as the time they stand for." if longest else "Each bar is the whole of its own row."
    return e(
        "section",
        e("h2", "Operations"),
        e(
            "p",
            "Where the time of a call goes. It was measured apart from the latency, because measuring each operation "
            "slows the call down. ",
            lengths if len(timed) > 1 else None,
            class_="lead",
        ),
        *(_legend(by, found, [cut[by] for cut in cuts if by in cut]) for by, found in colours.items() if found),
        e("div", *(_lane(*one, cut, colours, longest) for one, cut in zip(timed, cuts, strict=True)), class_="bars"),
        id="operations",
    )


def _sound(ops: tuple[OpTime, ...]) -> tuple[OpTime, ...]:
    """Those that are known; what takes less than the clock's tick is one of them."""
    return tuple(one for one in ops if one.ms == 0 or is_length(one.ms))


def _cut(one: Entry, ops: tuple[OpTime, ...]) -> Cut:
    """By operation always; by rule where one is known, by head where there is a MultiHead."""
    total = sum(op.ms for op in ops)

    def parts(shares: Iterable[Share], here: bool) -> list[Part]:
        return [Part(one.name, one.ms / total, one.ms, one.time.replace(" ", GLUE), one.count, here) for one in shares]

    taken, away = [op for op in ops if op.on_device], [op for op in ops if not op.on_device]
    found = {"operation": [*parts(by_op(taken), True), *parts(by_op(away), False)]}
    if any(op.rule for op in ops):
        found["rule"] = [*parts(by_rule(taken), True), *parts(by_rule(away), False)]
    path = Path(one.row.artifact)
    manifest = read_manifest(path) if path.is_file() else None
    if heads := by_head(ops, () if manifest is None else manifest.choices):
        found["head"] = parts(heads, True)
    return found


def _colours(cuts: Iterable[list[Part]]) -> dict[str, int]:
    """Name -> number of its colour, for those that take the greatest share of some row."""
    shares: dict[str, float] = {}
    for parts in cuts:
        for part in parts:
            shares[part.name] = max(shares.get(part.name, 0.0), part.share)
    ranked = sorted(shares.keys() - NONE, key=lambda name: (-shares[name], name))
    return {name: number for number, name in enumerate(ranked[:COLOURS])}


def _lane(
    one: Entry, ops: tuple[OpTime, ...], cut: Cut, colours: dict[str, dict[str, int]], longest: float | None
) -> Element:
    total = sum(op.ms for op in ops)
    bars = []
    for by, parts in cut.items():
        if len(cut) > 1:
            bars.append(e("div", f"by {by}", class_="barname"))
        bars.append(_bar(one, by, parts, colours[by], 100 * total / (longest or total)))
    count = f" in {len(ops)} operation{'s' if len(ops) != 1 else ''}"
    label = e("div", one.shown(), e("span", e("b", time(total)), count, class_="figures"), class_="label")
    tables = (_table(one, by, parts) for by, parts in cut.items())
    details = e("details", e("summary", "In numbers"), *tables)
    return e("div", label, e("div", *bars, details, class_="track"), class_="lane")


def _bar(one: Entry, by: str, parts: list[Part], colours: dict[str, int], width: float) -> Element:
    """From the greatest; those without a colour together, apart where they did not run there."""
    parts = [part for part in parts if part.share]
    shown = sorted((part for part in parts if _named(part, colours)), key=lambda part: -part.share)
    for here in (True, False):
        small = [part for part in parts if not _named(part, colours) and part.here is here]
        if small:
            name = small[0].name if len(small) == 1 else f"{len(small)} {REST}"
            ms, count = sum(part.ms for part in small), sum(part.count for part in small)
            shown.append(Part(name, sum(part.share for part in small), ms, time(ms), count, here))
    drawn = []
    for part in shown:
        words = f"{part.name}: {part.time}, {portion(part.share)}" + ("" if part.here else "; not on the device")
        text = (e("i"), e("span", foreign(part.name)), e("span", portion(part.share)))
        grow = f"flex-grow:{part.share:.5g}"
        drawn.append(e("div", *text, class_=f"part {_colour(part, colours)}", style=grow, title=words))
    words = ", ".join(f"{part.name} {portion(part.share)}" for part in shown)
    label = f"{one.label}, time by {by}: {words}"
    return e("div", *drawn, class_="bar", style=f"width:{width:.4g}%", role="img", aria_label=label)


def _named(part: Part, colours: dict[str, int]) -> bool:
    return part.name in colours or part.name in NONE


def _colour(part: Part, colours: dict[str, int]) -> str:
    number = colours.get(part.name)
    colour = ("none" if part.name in NONE else "rest") if number is None else _key(number)
    return colour if part.here else f"{colour} elsewhere"


def _key(number: int) -> str:
    """The classes of a colour: after the plain ones, the same again with dots."""
    return f"c{number}" if number < PLAIN else f"c{number - PLAIN} dotted"


def _legend(by: str, colours: dict[str, int], cuts: list[list[Part]]) -> Element:
    names = [e("li", f"By {by}:", class_="dim")]
    names += [e("li", e("span", class_=f"key {_key(number)}"), foreign(name)) for name, number in colours.items()]
    drawn = [part for parts in cuts for part in parts if part.share]
    names += [
        e("li", e("span", class_="key none"), name) for name in sorted(NONE) if any(part.name == name for part in drawn)
    ]
    if any(not _named(part, colours) for part in drawn):
        names.append(e("li", e("span", class_="key rest"), REST))
    if any(not part.here for part in drawn):
        names.append(e("li", e("span", class_="key rest elsewhere"), "not on the device"))
    return e("ul", *names, class_="legend", aria_label=f"Colours of the bars by {by}")


def _table(one: Entry, by: str, parts: list[Part]) -> Element:
    lines = [
        e(
            "tr",
            e(
                "th",
                foreign(part.name) if part.name else NOTHING,
                None if part.here else ", not on the device",
                scope="row",
            ),
            e("td", f"{part.count}", class_="n"),
            e("td", part.time, class_="n"),
            e("td", portion(part.share), class_="n"),
        )
        for part in parts
    ]
    head = e("tr", *(e("th", name, scope="col") for name in (by.capitalize(), "Count", "Time", "Share")))
    caption = e("caption", f"Time by {by}, {one.label}")
    return e("div", e("table", caption, e("thead", head), e("tbody", *lines), class_="ops"), class_="scroll")
