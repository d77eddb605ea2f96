"""Latency: for each row how often a call took how long, on one axis, beside the noise around the first row's median."""

from __future__ import annotations

import numpy as np

from mh_edge.profiling.report.entries import Entry, first_timed, listed, ticks, time
from mh_edge.profiling.report.html import Element, e
from mh_edge.profiling.report.svg import LARGEST, Scale, axis, chart, grid, is_length, line, path, stretched
from mh_edge.profiling.result import Latency, Profile

POINTS = 160
"""Of a curve: one for every few pixels of a wide page."""

TAIL = 99
"""The quantile in percent at which the axis ends: the slowest call of thousands would press all others together."""

HEIGHTS = {"p50": 100, "p90": 66, "p99": 40}
"""Percentile -> how high its mark is, in percent."""

NARROWEST = 0.3
"""Bandwidth in percent of the axis below which a curve could no longer be seen."""


def section(profile: Profile, rows: tuple[Entry, ...]) -> Element | None:
    """A lane for each row that was timed; None where none was."""
    first = first_timed(rows)
    drawn = [(one, one.latency, _quantiles(one.latency)) for one in rows if one.latency is not None]
    if first is None or first.latency is None:
        return None
    values = [value for _, found, known in drawn for value in (found.p50, *known[1 : TAIL + 1])]
    scale = Scale.over(values)
    band = _noise(profile, first.latency, scale)
    lanes = [_lane(one, found, known, scale, band) for one, found, known in drawn]
    untimed = [one.label for one in rows if one.latency is None and one.row.failure is None]
    return e(
        "section",
        e("h2", "Latency"),
        e("p", *_explained(profile, first, len(drawn), scale), class_="lead"),
        _legend(),
        e(
            "div",
            e(
                "div",
                e("div"),
                e("div", axis(scale, ticks(scale)), class_="track"),
                class_="lane ruler",
                aria_hidden="true",
            ),
            *lanes,
            class_="lanes",
        ),
        e("p", f"No times of single calls are known of {listed(untimed)}.", class_="note") if untimed else None,
        id="latency",
    )


def density(known: list[float], scale: Scale) -> list[tuple[float, float]]:
    """Quantiles -> curve of how often, as (percent of the axis, percent of the height): a sum of one bell curve for
    each quantile, half as wide as the rule of Silverman (Density Estimation, 1986, eq. 3.31) has it, which shows two
    peaks where there are two.
    """
    at = np.array([scale.at(value) for value in known])
    quarters = np.percentile(at, [25, 75])
    spread = min(float(at.std()), float(quarters[1] - quarters[0]) / 1.34)
    width = max(NARROWEST, 0.45 * spread * len(at) ** -0.2)
    low, high = max(0.0, at.min() - 3 * width), min(100.0, at.max() + 3 * width)
    places = np.linspace(low, high, POINTS)
    heights = np.exp(-0.5 * ((places[:, None] - at[None, :]) / width) ** 2).sum(axis=1)
    heights = 92 * heights / heights.max()
    return list(zip(places.tolist(), (100 - heights).tolist(), strict=True))


def _quantiles(found: Latency) -> list[float]:
    return [value for value in found.quantiles if is_length(value)]


def _percentiles(found: Latency) -> list[tuple[str, float]]:
    """Those that are known."""
    pairs = (("p50", found.p50), ("p90", found.p90), ("p99", found.p99))
    return [(name, value) for name, value in pairs if value is not None]


def _noise(profile: Profile, first: Latency, scale: Scale) -> Element | None:
    """What cannot be told from the first row's median."""
    if profile.noise is None or not 1 <= profile.noise <= LARGEST:
        return None
    low, high = scale.at(first.p50 / profile.noise), scale.at(first.p50 * profile.noise)
    return e("rect", x=f"{low:.3f}%", width=f"{max(0.2, high - low):.3f}%", y="0", height="100%", class_="noise")


def _lane(one: Entry, found: Latency, known: list[float], scale: Scale, band: Element | None) -> Element:
    shown = ", ".join(f"{name} {time(value)}" for name, value in _percentiles(found))
    words = f"{one.label}: {shown}, of {found.calls:,} calls"
    kept = known[1 : TAIL + 1]
    curve = density(kept, scale) if len(kept) > 1 else []
    area = path([(curve[0][0], 100), *curve, (curve[-1][0], 100)], closed=True) if curve else ""
    low, high = (scale.at(value if is_length(value) else found.p50) for value in found.interval)
    marks = [
        line(scale.at(value), 100 - HEIGHTS[name], scale.at(value), 100, name)
        for name, value in _percentiles(found)
        if scale.low <= value <= scale.high
    ]
    drawing = chart(
        words,
        "ridge" if one.sound else "ridge suspect",
        band,
        *grid(scale),
        stretched(e("path", d=area, class_="area")) if area else None,
        line(low, 98, high, 98, "interval"),
        *marks,
    )
    return e(
        "div",
        e("div", one.shown(), _figures(one, found, known), class_="label"),
        e("div", drawing, class_="track"),
        class_="lane",
    )


def _figures(one: Entry, found: Latency, known: list[float]) -> Element:
    pairs = [*_percentiles(found), *(("slowest", value) for value in known[-1:])]
    figures = [e("span", f"{name} ", e("b" if name == "p50" else "span", time(value))) for name, value in pairs]
    calls = e("span", f"{found.calls:,} call{'s' if found.calls != 1 else ''}")
    return e("span", *(part for figure in (*figures, calls) for part in (figure, " ")), class_="figures")


def _explained(profile: Profile, first: Entry, count: int, scale: Scale) -> list[str]:
    words = ["Height: how often a call took that long, up to p99 (smoothed). Slower is further right"]
    words.append("; the axis is logarithmic. " if scale.log else ". ")
    if not scale.log:
        words.append("The axis does not begin at zero. ")
    if count > 1 and profile.noise is not None:
        words.append(
            f"The grey band is the noise of the machine around {first.label}: a median within it is no difference."
        )
    return words


def _legend() -> Element:
    def mark(name: str, meaning: str) -> Element:
        drawn = e("svg", line(50, 100 - HEIGHTS[name], 50, 100, name), class_="swatch", aria_hidden="true")
        return e("li", drawn, meaning)

    interval = e("svg", line(0, 80, 100, 80, "interval"), class_="swatch", aria_hidden="true")
    return e(
        "ul",
        mark("p50", "half of the calls (p50)"),
        mark("p90", "90 % (p90)"),
        mark("p99", "99 % (p99)"),
        e("li", interval, "where p50 of another run would lie (95 %)"),
        class_="legend",
    )
