"""What quantizing lost against how fast the file is: the files that no other beats in both, beyond the noise,
are joined by a line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePath
from typing import Any

from mh_edge.profiling.report.entries import Entry, listed, ticks, time
from mh_edge.profiling.report.html import Element, e
from mh_edge.profiling.report.labels import Line, Place, Spot, places, shortened
from mh_edge.profiling.report.svg import LARGEST, Scale, axis, chart, grid, line, path, stretched
from mh_edge.units import score

HEIGHT = 320
"""Pixels; the same as in the style sheet."""

MARGIN = 0.12
"""Of the height, left free above and below for labels."""

ALL_WIDTHS, WIDE = range(240, 1400, 40), range(560, 1400, 40)
"""Widths of the chart in pixels at which labels must stand clear: numbers at all, names where the style sheet shows
them.
"""


@dataclass(frozen=True)
class Figure:
    """One of the figures of `quantize`. key: its name there; metric: what it is called; share: whether of 1."""

    key: str
    metric: str
    share: bool = True

    def title(self) -> str:
        return self.metric[:1].upper() + self.metric[1:]

    def written(self, value: float) -> str:
        return f"{value:.3g} dB" if self.key == "sqnr_db" else score(value, self.share)

    def tick(self, value: float) -> str:
        """A round value on an axis, exactly."""
        if self.key == "sqnr_db":
            return f"{value:,.6g} dB"
        return f"{100 * value:.6g}%" if self.share else f"{value:,.6g}"

    def of(self, metrics: Mapping[str, Any]) -> float | None:
        return _number(metrics.get(self.key))

    def of_float(self, metrics: Mapping[str, Any]) -> float | None:
        """What the float file has: all the same answers as itself; no noise at all, which no axis holds."""
        if self.key == "accuracy":
            return _number(metrics.get("accuracy_float"))
        return 1.0 if self.key == "top1_agreement" else None


@dataclass(frozen=True)
class Point:
    """x: ms, y: the figure; higher is better."""

    entry: Entry
    x: float
    y: float


def section(rows: tuple[Entry, ...], noise: float | None) -> Element | None:
    """The chart; None where no row has both a time and a figure."""
    figure = best_known(rows)
    if figure is None:
        return None
    drawn = points(rows, figure)
    ahead = front(drawn, noise)
    on = sorted({str(metrics["on"]) for one in rows if (metrics := metrics_of(one)) and metrics.get("on")})
    level = _float_figure(rows, figure)
    given = {id(point.entry) for point in drawn}
    missing = [one.label for one in rows if one.row.quantized is not None and _timed(one) and id(one) not in given]
    return e(
        "section",
        e("h2", f"{figure.title()} against latency"),
        e(
            "p",
            f"{figure.title()} as quantize measured it, on {'; '.join(on) or 'data that it does not name'}; time as "
            "measured here. Up and to the left is better; the line joins the files that no other beats in both beyond "
            "the noise: one to the left of it is faster by less than that."
            + ("" if level is None else f" The dashed line is the float file: {figure.written(level)}."),
            class_="lead",
        ),
        e("p", "Not all of them were measured on the same data: compare with care.", class_="note")
        if len(on) > 1
        else None,
        _drawing(drawn, ahead, figure, level),
        _key(drawn, ahead, figure),
        e("p", f"Not drawn, because this is not known of them: {listed(missing)}.", class_="note") if missing else None,
        id="tradeoff",
    )


def metrics_of(one: Entry) -> Mapping[str, Any] | None:
    """What `quantize` measured, from the manifest."""
    found = (one.row.quantized or {}).get("metrics")
    return found if isinstance(found, Mapping) else None


def best_known(rows: tuple[Entry, ...]) -> Figure | None:
    """The figure that most rows have: accuracy before the same answers before noise."""
    known = Counter(figure for one in rows if _timed(one) for figure in _figures(metrics_of(one)))
    order = ("accuracy", "top1_agreement", "sqnr_db")
    return max(known, key=lambda figure: (known[figure], -order.index(figure.key)), default=None)


def _figures(metrics: Mapping[str, Any] | None) -> list[Figure]:
    """Those that are known."""
    if metrics is None:
        return []
    accuracy = Figure("accuracy", str(metrics.get("metric") or "accuracy"), metrics.get("share", True) is not False)
    agreement = Figure("top1_agreement", "same answer as the float file")
    noise = Figure("sqnr_db", "signal to noise ratio", share=False)
    return [figure for figure in (accuracy, agreement, noise) if figure.of(metrics) is not None]


def points(rows: tuple[Entry, ...], figure: Figure) -> list[Point]:
    """Each sound row with that figure, and the float file that it was made from where that is among the rows."""
    found = []
    floats: dict[str, float] = {}
    for one in rows:
        metrics = metrics_of(one)
        if metrics is None or figure not in _figures(metrics):
            continue
        value, before = figure.of(metrics), figure.of_float(metrics)
        if before is not None:
            floats[source(one)] = before
        if value is not None and _timed(one) and one.latency is not None:
            found.append(Point(one, one.latency.p50, value))
    for one in rows:
        if one.row.quantized is None and one.row.artifact in floats and _timed(one) and one.latency is not None:
            found.append(Point(one, one.latency.p50, floats[one.row.artifact]))
    return sorted(found, key=lambda point: (point.x, -point.y))


def source(one: Entry) -> str:
    """The float file, by the name that `quantize` gives what it makes: t0.int8.onnx of t0.onnx; empty for any other."""
    file = PurePath(one.row.artifact)
    scheme = (one.row.quantized or {}).get("scheme")
    stem, _, made = file.stem.rpartition(".")
    return str(file.with_name(stem + file.suffix)) if stem and made in (scheme, "auto") else ""


def front(drawn: list[Point], noise: float | None) -> list[Point]:
    """Those that no other beats, fastest first: no other is faster, beyond the noise, and as good; none is better and
    as fast, within the noise.
    """
    factor = noise if noise is not None and 1 <= noise <= LARGEST else 1.0
    beaten = [
        any((o.y >= p.y and o.x * factor < p.x) or (o.y > p.y and o.x <= p.x * factor) for o in drawn) for p in drawn
    ]
    return sorted((p for p, lost in zip(drawn, beaten, strict=True) if not lost), key=lambda p: (p.x, p.y))


def _timed(one: Entry) -> bool:
    return one.latency is not None and not one.wrong and one.row.failure is None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -LARGEST <= value <= LARGEST:
        return None
    return float(value)


def _float_figure(rows: tuple[Entry, ...], figure: Figure) -> float | None:
    """What all float files have alike, for a line across the chart."""
    found = {figure.of_float(metrics) for one in rows if (metrics := metrics_of(one)) is not None} - {None}
    return found.pop() if len(found) == 1 else None


def _drawing(drawn: list[Point], ahead: list[Point], figure: Figure, unquantized: float | None) -> Element:
    xs = Scale.over([point.x for point in drawn])
    ys = Scale.linear([point.y for point in drawn] + ([] if unquantized is None else [unquantized]), MARGIN)
    levels = [(100 - ys.at(tick), figure.tick(tick)) for tick in ys.ticks()]
    corners = _corners(ahead, xs, ys)
    lines = list(pairwise(corners))
    if unquantized is not None:
        lines.append(((0.0, 100 - ys.at(unquantized)), (100.0, 100 - ys.at(unquantized))))
    words = f"{figure.title()} against latency; on the front: {listed([point.entry.label for point in ahead])}"
    plot = chart(
        words,
        "plot",
        *grid(xs),
        *(line(0, y, 100, y, "grid") for y, _ in levels),
        *(line(*start, *end, "unquantized") for start, end in lines[len(corners) - 1 :]),
        stretched(e("path", d=path(corners), class_="front")),
        *_marks(drawn, ahead, figure, [(xs.at(point.x), 100 - ys.at(point.y)) for point in drawn], lines),
    )
    heights = [e("text", text, x="100%", dx="-6", y=f"{y:.3f}%", dy="4") for y, text in levels]
    ruler = e("svg", *heights, class_="heights", aria_hidden="true")
    return e("div", ruler, plot, e("div"), axis(xs, ticks(xs)), class_="scatter")


def _corners(ahead: list[Point], xs: Scale, ys: Scale) -> list[Spot]:
    """Of the line around all that is beaten: up to the fastest, level to the next one, up to it, and on to the edge."""
    corners = [(xs.at(ahead[0].x), 100.0)]
    for point in ahead:
        corners += [(xs.at(point.x), corners[-1][1]), (xs.at(point.x), 100 - ys.at(point.y))]
    return [*corners, (100.0, corners[-1][1])]


def _marks(
    drawn: list[Point], ahead: list[Point], figure: Figure, at: list[Spot], lines: list[Line]
) -> Iterator[Element]:
    """Each point with its name where the page is wide and all names have room, else with its number."""
    numbers = [str(number) for number in range(1, len(drawn) + 1)]
    names = [shortened(point.entry.label) for point in drawn]
    narrow = places(at, numbers, ALL_WIDTHS, HEIGHT, lines)
    wide = places(at, names, WIDE, HEIGHT, lines)
    named = all(place is not None for place in wide)
    for index, (point, (x, y)) in enumerate(zip(drawn, at, strict=True)):
        yield e(
            "svg",
            e("title", f"{point.entry.label}: {figure.written(point.y)}, {time(point.x)}"),
            _label(narrow[index], numbers[index], "narrow" if named else ""),
            _label(wide[index], names[index], "wide") if named else None,
            e("circle", r=5, class_="point" if point in ahead else "point beaten"),
            x=f"{x:.3f}%",
            y=f"{y:.3f}%",
        )


def _label(place: Place | None, text: str, kind: str) -> Element | None:
    if place is None:
        return None
    lead = e("line", x1=0, y1=0, x2=place.dx, y2=place.dy - 4, class_="leader") if place.far else None
    return e(
        "g",
        lead,
        e("text", text, x=place.dx, y=place.dy, text_anchor=place.anchor),
        class_=f"pointlabel {kind}".strip(),
    )


def _key(drawn: list[Point], ahead: list[Point], figure: Figure) -> Element:
    lines = [
        e(
            "tr",
            e("td", "●" if point in ahead else "○", f" {number}", class_="n"),
            e("th", point.entry.shown(), scope="row"),
            e("td", time(point.x), class_="n"),
            e("td", figure.written(point.y), class_="n"),
        )
        for number, point in enumerate(drawn, 1)
    ]
    titles = ("No.", "File", "Median", figure.title())
    head = e("tr", *(e("th", title, scope="col") for title in titles))
    caption = e("caption", "The points of the chart; ● is one that no other beats in both beyond the noise")
    return e("div", e("table", caption, e("thead", head), e("tbody", *lines), class_="points"), class_="scroll")
