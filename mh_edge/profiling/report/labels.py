"""Places for labels beside points whose positions are shares of a width that nobody knows yet."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

LINE, LETTER, WIDE_LETTER = 16.0, 7.2, 14.0
"""Pixels: the height of a label, and of its letters the widest usual ones."""

GAP = 6.0
"""Pixels between labels beside each other."""

DOT = 7.0
"""Pixels from the middle of a point that belong to it."""

OFFSETS = (
    (11, 4, "start"), (-11, 4, "end"), (0, -12, "middle"), (0, 22, "middle"), (10, -12, "start"), (10, 20, "start"),
    (-10, -12, "end"), (-10, 20, "end"), (0, -28, "middle"), (0, 38, "middle"), (14, -28, "start"), (14, 38, "start"),
    (-14, -28, "end"), (-14, 38, "end"), (24, 4, "start"), (-24, 4, "end"), (14, 54, "start"), (-14, 54, "end"),
    (14, -44, "start"), (-14, -44, "end"),
)  # fmt: skip
"""Where a label may stand, the best place first: pixels from the point to the foot of the text, and which end of it."""


@dataclass(frozen=True)
class Place:
    """dx, dy: pixels from the point to the foot of the text. anchor: which end of it stands there."""

    dx: float
    dy: float
    anchor: str

    @property
    def far(self) -> bool:
        """So far that a line must lead there."""
        return abs(self.dy) > 24 or abs(self.dx) > 20


Box = tuple[float, float, float, float]
Spot = tuple[float, float]
Line = tuple[Spot, Spot]


def places(
    points: Sequence[Spot], texts: Sequence[str], widths: Sequence[float], height: float, lines: Sequence[Line] = ()
) -> list[Place | None]:
    """points: percent of the width and of the height -> where each label stands within the chart and clear of all
    points, labels and, where that is possible, lines, at each of the widths (in pixels); None where it cannot.
    """
    drawn = [[_along(line, width, height) for line in lines] for width in widths]
    taken = [[_along((point, point), width, height, DOT) for point in points] for width in widths]
    found: list[Place | None] = []
    for point, text in zip(points, texts, strict=True):

        def first(obstacles: list[list[Box]], point: Spot = point, text: str = text) -> Place | None:
            tried = (Place(*offset) for offset in OFFSETS)
            return next((place for place in tried if _clear(point, text, place, widths, height, obstacles)), None)

        place = first([[*some, *others] for some, others in zip(taken, drawn, strict=True)]) or first(taken)
        if place is not None:
            for width, boxes in zip(widths, taken, strict=True):
                boxes.append(_box(point, text, place, width, height))
        found.append(place)
    return found


def text_width(text: str) -> float:
    """Pixels that it takes at most, in the usual fonts at 12 pixels."""
    return sum(WIDE_LETTER if unicodedata.east_asian_width(letter) in "WF" else LETTER for letter in text)


def shortened(text: str, most: int = 30) -> str:
    """Without its middle where it is long: the ends of names tell them apart."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"


def _clear(
    point: Spot, text: str, place: Place, widths: Sequence[float], height: float, taken: list[list[Box]]
) -> bool:
    for width, boxes in zip(widths, taken, strict=True):
        own = _box(point, text, place, width, height)
        if own[0] < 0 or own[1] < 0 or own[2] > width or own[3] > height:
            return False
        if any(own[0] < box[2] and box[0] < own[2] and own[1] < box[3] and box[1] < own[3] for box in boxes):
            return False
    return True


def _along(line: Line, width: float, height: float, around: float = 1.0) -> Box:
    """The box around an upright or level line."""
    (x1, y1), (x2, y2) = sorted(line)
    low, high = sorted((y1, y2))
    return (
        x1 * width / 100 - around,
        low * height / 100 - around,
        x2 * width / 100 + around,
        high * height / 100 + around,
    )


def _box(point: Spot, text: str, place: Place, width: float, height: float) -> Box:
    x, y = point[0] * width / 100 + place.dx, point[1] * height / 100 + place.dy
    size = text_width(text)
    left = x - {"start": 0.0, "middle": 0.5, "end": 1.0}[place.anchor] * size - GAP / 2
    return left, y - 0.75 * LINE, left + size + GAP, y + 0.25 * LINE
