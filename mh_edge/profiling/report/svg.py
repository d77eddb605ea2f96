"""Axes for charts whose lengths are shares of whatever width the page has.

Nothing is drawn to a fixed width: positions are percentages, so that text keeps its size on a phone as on a wall. A
curve is a path in a view box of 100 by 100 that is stretched, with a pen that is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Self

from mh_edge.profiling.report.html import Child, Element, e

LOG_BEYOND = 5.0
"""Greatest / least beyond which a linear axis would press the smaller values together: they get a logarithmic one."""

MARGIN = 0.04
"""Of the axis, left free at both ends, so that no mark sits on the edge."""

APART = 21.0
"""Percent of the axis between ticks: less, and their numbers would touch each other on a phone."""

EDGE = 7.0
"""Percent of the axis at its ends that get no tick: its number would stick out of the page."""

LARGEST = 1e12
"""No time in milliseconds and no figure that was measured is as large, or a time as small as 1 / LARGEST: such numbers
are faults, and would break the arithmetic of an axis.
"""

ALIKE = 1e-9
"""Share of a value by which another must differ to be told from it on an axis."""


@dataclass(frozen=True)
class Scale:
    """value -> percent of the axis: 100 (value - low) / (high - low), of logarithms where `log`."""

    low: float
    high: float
    log: bool = False

    @classmethod
    def over(cls, values: Iterable[float]) -> Self:
        """The axis on which all these values, within LARGEST, can be told apart, with a margin."""
        known = list(values)
        least, most = min(known), max(known)
        if least > 0 and most / least > LOG_BEYOND:
            margin = (most / least) ** MARGIN
            return cls(least / margin, most * margin, True)
        return cls.linear(known)

    @classmethod
    def linear(cls, values: Iterable[float], margin: float = MARGIN) -> Self:
        """The same, never logarithmic."""
        known = list(values)
        least, most = min(known), max(known)
        spread = most - least if most - least > ALIKE * max(abs(least), abs(most)) else abs(most) or 1.0
        return cls(least - margin * spread, most + margin * spread)

    def at(self, value: float) -> float:
        """Percent, within 0 ... 100."""
        if self.log:
            share = (math.log(max(value, self.low)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        else:
            share = (value - self.low) / (self.high - self.low)
        return 100.0 * min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """Round values within the axis, as many as can stand beside each other."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1, 2, 5), (1, 3), (1,)):
                round_ones = [step * 10.0**power for power in powers for step in steps]
                found = self._standing(round_ones)
                if len(found) > 1 and (steps == (1,) or len(found) == len(self._inside(round_ones))):
                    return found
        rough = (self.high - self.low) * APART / 100
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * nice for nice in (1, 2, 2.5, 5, 10, 20) if unit * nice >= rough)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return self._standing([step * count for count in range(first, last + 1)])

    def _inside(self, values: Iterable[float]) -> list[float]:
        return [value for value in values if EDGE <= self.at(value) <= 100 - EDGE]

    def _standing(self, values: Iterable[float]) -> list[float]:
        """Those inside, without the ones too near to the one before."""
        found: list[float] = []
        for value in self._inside(values):
            if not found or self.at(value) - self.at(found[-1]) >= APART:
                found.append(value)
        return found


def is_length(value: float) -> bool:
    """Whether a time is one that can be drawn."""
    return 1 / LARGEST <= value <= LARGEST


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Element:
    """A line between points in percent."""
    return e("line", x1=f"{x1:.3f}%", y1=f"{y1:.3f}%", x2=f"{x2:.3f}%", y2=f"{y2:.3f}%", class_=kind)


def grid(scale: Scale) -> list[Element]:
    """An upright line at each tick."""
    return [line(scale.at(tick), 0, scale.at(tick), 100, "grid") for tick in scale.ticks()]


def axis(scale: Scale, written: Callable[[float], str]) -> Element:
    """The values of the ticks, below or above a chart of the same width."""
    texts = [e("text", written(tick), x=f"{scale.at(tick):.3f}%", y="1em") for tick in scale.ticks()]
    return e("svg", *texts, class_="axis", aria_hidden="true")


def stretched(*children: Child) -> Element:
    """Room for paths in 100 by 100 units, as wide and high as the chart."""
    return e("svg", *children, viewBox="0 0 100 100", preserveAspectRatio="none", width="100%", height="100%")


def path(points: Sequence[tuple[float, float]], closed: bool = False) -> str:
    """Points in percent -> what a path draws."""
    return "M" + "L".join(f"{x:.2f} {y:.2f}" for x, y in points) + ("Z" if closed else "")


def chart(label: str, kind: str, *children: Child) -> Element:
    """A drawing, and in words what it shows, for those who do not see it."""
    return e("svg", e("title", label), *children, class_=kind, role="img", aria_label=label)
