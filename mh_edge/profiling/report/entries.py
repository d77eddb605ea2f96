"""The rows of a profile under names that are short and still tell them apart, with times in a unit they share."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass

from mh_edge.profiling.report.html import NOTHING, Element, e, foreign
from mh_edge.profiling.report.svg import is_length
from mh_edge.profiling.result import Latency, Profile, Row
from mh_edge.units import digits, duration

GLUE = "\u00a0"
"""The blank between a number and its unit, at which no line is broken."""

MOST = 10_000
"""From so many of a unit on, its numbers are read no better than those of several units."""


@dataclass(frozen=True)
class Entry:
    """A row. name: the end of the artifact's path by which it is known from the others. unit: in which the times of
    calls of all rows are written, "µs" or "ms"; empty where they are too far apart for one.
    """

    row: Row
    name: str
    unit: str = ""

    @property
    def label(self) -> str:
        return f"{self.name} on {self.row.device}"

    @property
    def wrong(self) -> bool:
        """Its numbers are not those of the reference device."""
        return self.row.agreement is not None and self.row.agreement.equal is False

    @property
    def sound(self) -> bool:
        """It ran, all of it on the device, and nothing says that its numbers are wrong."""
        return self.row.failure is None and not self.row.fell_back and not self.wrong

    @property
    def latency(self) -> Latency | None:
        """With numbers that can be drawn."""
        found = self.row.latency
        return found if found is not None and is_length(found.p50) else None

    def time(self, milliseconds: float | None) -> str:
        """That of a call, in the unit of all rows."""
        if not self.unit or milliseconds is None or not math.isfinite(milliseconds):
            return time(milliseconds)
        return f"{digits(milliseconds * (1e3 if self.unit == 'µs' else 1))}{GLUE}{self.unit}"

    def tick(self, milliseconds: float) -> str:
        """A round time on an axis, exactly."""
        unit = self.unit or time(milliseconds).rpartition(GLUE)[2]
        return f"{milliseconds * {'µs': 1e3, 'ms': 1.0, 's': 1e-3}[unit]:,.6g}{GLUE}{unit}"

    def span(self, low: float, high: float) -> str:
        """From one to the other: "107 to 110 µs", the unit once where it is the same."""
        first, last = self.time(low), self.time(high)
        number, _, unit = first.partition(GLUE)
        return f"{number if unit == last.partition(GLUE)[2] else first} to {last}"

    def shown(self) -> Element:
        """Name and device, for a table or beside a bar."""
        device = e("span", "on ", foreign(self.row.device), class_="device")
        return e("span", foreign(self.name, class_="name", title=self.row.artifact), " ", device, class_="entry")


def entries(profile: Profile) -> tuple[Entry, ...]:
    """One for each row, in order. Folders that all artifacts share are left out of their names."""
    paths = list(dict.fromkeys(row.artifact for row in profile.rows))
    split = {path: path.replace(os.sep, "/").split("/") for path in paths}
    depth = 1
    while depth < max(map(len, split.values()), default=1) and len(_ends(split.values(), depth)) < len(paths):
        depth += 1
    unit = _unit([row.latency.p50 for row in profile.rows if row.latency is not None])
    return tuple(Entry(row, "/".join(split[row.artifact][-depth:]) or row.artifact, unit) for row in profile.rows)


def first_timed(rows: Iterable[Entry]) -> Entry | None:
    """The entry that the times of the others are compared with."""
    return next((one for one in rows if one.latency is not None), None)


def time(milliseconds: float | None) -> str:
    """A duration, or a dash for what was not measured."""
    if milliseconds is None:
        return NOTHING
    return duration(milliseconds).replace(" ", GLUE) if math.isfinite(milliseconds) else "not a number"


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a row: "a, b, c and 5 more"."""
    names = list(names)
    rest = len(names) - most
    if rest > 1:
        return f"{', '.join(names[:most])} and {rest} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _ends(paths: Iterable[list[str]], depth: int) -> set[tuple[str, ...]]:
    return {tuple(path[-depth:]) for path in paths}


def _unit(medians: list[float]) -> str:
    """That in which none is less than one and none more than is read easily."""
    known = [value for value in medians if is_length(value)]
    if not known:
        return ""
    scaled = {"ms": known, "µs": [1e3 * value for value in known]}
    return next((unit for unit, values in scaled.items() if min(values) >= 1 and max(values) < MOST), "")
