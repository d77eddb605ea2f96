"""The rows of a profile under names that are short and still tell them apart."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from mh_edge.profiling.report.html import NOTHING, Element, e, foreign
from mh_edge.profiling.report.svg import Scale, is_length
from mh_edge.profiling.result import Latency, Profile, Row
from mh_edge.units import duration

GLUE = "\u00a0"
"""The blank between a number and its unit, at which no line is broken."""

ONE_UNIT = 20.0
"""Greatest / least of the times on an axis up to which all are written in one unit."""


@dataclass(frozen=True)
class Entry:
    """A row. name: the end of the artifact's path by which it is known from the others."""

    row: Row
    name: str

    @property
    def label(self) -> str:
        return f"{self.name} on {self.row.device}"

    @property
    def wrong(self) -> bool:
        """Its numbers are not those of the reference device."""
        return self.row.agreement is not None and self.row.agreement.equal is False

    @property
    def away(self) -> bool:
        """Nothing of it ran on the device."""
        return self.row.placement is not None and self.row.fell_back and not self.row.placement.on_device

    @property
    def sound(self) -> bool:
        """It ran, at least some of it on the device, and nothing says that its numbers are wrong."""
        return self.row.failure is None and not self.away and not self.wrong

    @property
    def latency(self) -> Latency | None:
        """With numbers that can be drawn."""
        found = self.row.latency
        return found if found is not None and is_length(found.p50) else None

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
    return tuple(Entry(row, "/".join(split[row.artifact][-depth:]) or row.artifact) for row in profile.rows)


def first_timed(rows: Iterable[Entry]) -> Entry | None:
    """The entry that the times of the others are compared with."""
    return next((one for one in rows if one.latency is not None), None)


def time(milliseconds: float | None) -> str:
    """A duration, or a dash for what was not measured."""
    if milliseconds is None:
        return NOTHING
    return duration(milliseconds).replace(" ", GLUE) if math.isfinite(milliseconds) else "not a number"


def span(low: float, high: float) -> str:
    """From one to the other: "107 to 110 µs", the unit once where it is the same."""
    first, last = time(low), time(high)
    number, _, unit = first.partition(GLUE)
    return f"{number if unit == last.partition(GLUE)[2] else first} to {last}"


def ticks(scale: Scale) -> Callable[[float], str]:
    """How the round times on an axis are written: exactly, in one unit where they are not too far apart for one."""
    found = scale.ticks()
    shared = _unit(found[0]) if found and found[-1] <= ONE_UNIT * found[0] else ""

    def written(milliseconds: float) -> str:
        unit = shared or _unit(milliseconds)
        return f"{milliseconds * {'µs': 1e3, 'ms': 1.0, 's': 1e-3}[unit]:,.6g}{GLUE}{unit}"

    return written


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a row: "a, b, c and 5 more"."""
    names = list(names)
    rest = len(names) - most
    if rest > 1:
        return f"{', '.join(names[:most])} and {rest} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""


def _ends(paths: Iterable[list[str]], depth: int) -> set[tuple[str, ...]]:
    return {tuple(path[-depth:]) for path in paths}


def _unit(milliseconds: float) -> str:
    return time(milliseconds).rpartition(GLUE)[2]
