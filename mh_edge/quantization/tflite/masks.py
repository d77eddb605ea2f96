"""Attention masks in TFLite files: where a softmax hides steps, and the ranges with which that survives in integers.

    softmax(c · (scores + mask)), mask = 0 or −10000 (−1e9 or less in other files), c mostly 1

One range for scores + mask, [−10000, max], leaves the scores a step of 39 in 8 bits: all of them become one number. But
a step weighs nothing as soon as its sum lies `margin` below the greatest one. With L, H the least and the greatest
score seen:

    R = H − L + margin / c:  mask: [−R, 0], its constants cut off there;  scores + mask: [L − R, H]

Then hidden steps get the weight 0, and a row that is hidden whole is softmax(scores − R) = softmax(scores), as in
float. Two masks added hide twice as deep, in float as here: mask: [−2 R, 0]. Where −1e9 swallows the scores in float
already, or the file chooses, select(hidden, −1e9, scores), such a row is uniform, and the sum is [L − margin / c, H]:
it saturates.

Masks are found from the softmax backwards. What is added is a mask when interval arithmetic over booleans, constants
and inputs shows that it reaches MASK_LEVEL and does not pass SLACK the other way; whose file it is makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from mh_edge.quantization.scheme import Range, RangeChange, Ranges
from mh_edge.quantization.tflite.model import Operation, add_constant, constant, is_float, operations

MASK_LEVEL = 1000.0
"""What is added to scores and reaches −1000 hides them: trained scores are some tens, masks are −10000 and beyond."""

SLACK = 1.0
"""How far a mask may go the other way; some files write 1 − 10000 · hidden."""

SAME = frozenset({"RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "BROADCAST_TO", "EXPAND_DIMS", "SQUEEZE", "TILE"})
"""Operations that only move entries; litert-quantizer gives both sides one scale."""

SUMS = frozenset({"ADD", "SUB"})
CHOICES = frozenset({"SELECT", "SELECT_V2"})
OTHERS = frozenset({"MUL", "MINIMUM", "MAXIMUM"})

MAX = float(np.finfo(np.float32).max)

ROUNDING = 2.0**-24
"""What is less than this share of a 32-bit float is lost when it is added to it."""

WHY_MASK = "an attention mask: further down than the scores reach it hides no better"
WHY_SUM = "scores with a mask: what is hidden stays just below what the softmax can tell from nothing"


@dataclass
class _Site:
    """One place where a mask meets scores. sign: −1 where it is subtracted. flat: rows hidden whole are uniform.
    factor: c. parts: the tensors that the mask is computed from, itself included. below: tensors between the sum and
    the softmax (or the next sum), nearest to the softmax first, each with the factor that it is of the sum. room: R.
    """

    total: int
    scores: int
    mask: int
    sign: int
    flat: bool
    factor: float
    parts: frozenset[int]
    below: tuple[tuple[int, float], ...]
    room: float = 0.0


def keep_masks(model: Any, ranges: Ranges, margin: float) -> tuple[Ranges, tuple[RangeChange, ...]]:
    """Ranges with which masks hide in integers too, and what was changed. Constants of `model` that are parts of a mask
    are cut off. margin: exp(−margin) is no weight.
    """
    masks = _Masks(model, ranges)
    rows = [row for one in masks.operations if one.kind == "SOFTMAX" if (row := [*masks.sites(one.inputs[0])])]
    masks.make_room(rows, margin)
    for row in rows:
        for site in row:
            masks.cut(site)
    for row in rows:
        masks.widen(row, margin)
    return masks.ranges, tuple(masks.changes.values())


class _Masks:
    """The main graph with its ranges as they become, and the changes by tensor name."""

    def __init__(self, model: Any, ranges: Ranges) -> None:
        self.model = model
        self.names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
        self.ranges = dict(ranges)
        self.operations = [one for one in operations(model) if one.graph == 0]
        self.maker = {made: one for one in self.operations for made in one.outputs}
        self.limits: dict[int, float] = {}
        self.changes: dict[str, RangeChange] = {}

    def sites(self, tensor: int, factor: float = 1.0, below: tuple[tuple[int, float], ...] = ()) -> Iterator[_Site]:
        """Those from a softmax's input backwards, the innermost last."""
        one = self.maker.get(tensor)
        if one is None:
            return
        if one.kind in SAME:
            yield from self.sites(one.inputs[0], factor, (*below, (tensor, 1.0)))
        elif one.kind == "MUL" and (scaled := self._scaled(one)) is not None:
            other, by = scaled
            passed = (*((index, before * by) for index, before in below), (tensor, by))
            yield from self.sites(other, factor * by, passed)
        elif (found := self._masked(one)) is not None:
            mask, scores, sign, flat = found
            yield _Site(tensor, scores, mask, sign, flat, factor, frozenset(self._parts(mask)), below)
            yield from self.sites(scores, factor)

    def _scaled(self, one: Operation) -> tuple[int, float] | None:
        """(the other operand, c) of a product with one constant c > 0."""
        for number, other in (one.inputs, one.inputs[::-1]):
            values = constant(self.model, number)
            if values is not None and values.size == 1 and values.item() > 0:
                return other, float(values.item())
        return None

    def _masked(self, one: Operation) -> tuple[int, int, int, bool] | None:
        """(mask, scores, sign, flat) of an operation that hides scores."""
        if one.kind not in SUMS | CHOICES:
            return None
        first, second = one.inputs[-2:]
        sign = -1 if one.kind == "SUB" else 1
        for mask, scores in ((second, first), (first, second))[: 1 if one.kind == "SUB" else 2]:
            span = self._span(mask)
            if span is None or self.names[scores] not in self.ranges:
                continue
            low, high = (span.low, span.high) if sign > 0 else (-span.high, -span.low)
            if low <= -MASK_LEVEL and high <= SLACK:
                seen = self.ranges[self.names[scores]]
                swallows = -low * ROUNDING > seen.high - seen.low
                return mask, scores, sign, bool(one.kind in CHOICES or swallows)
        return None

    def _span(self, tensor: int) -> Range | None:
        """Between which values a tensor lies, if it comes from booleans, constants and inputs by simple arithmetic."""
        values = constant(self.model, tensor)
        if values is not None:
            return Range(float(max(values.min(), -MAX)), float(min(values.max(), MAX))) if values.size else None
        one = self.maker.get(tensor)
        if one is None or one.kind == "CAST":
            seen = self.ranges.get(self.names[tensor])
            limit = self.limits.get(tensor, np.inf)
            return None if seen is None else Range(max(seen.low, -limit), min(seen.high, limit))
        if one.kind in SAME:
            return self._span(one.inputs[0])
        if one.kind not in SUMS | CHOICES | OTHERS:
            return None
        first, second = (self._span(index) for index in one.inputs[-2:])
        return None if first is None or second is None else _combined(one.kind, first, second)

    def _parts(self, tensor: int) -> Iterator[int]:
        yield tensor
        one = self.maker.get(tensor)
        for index in one.inputs if one is not None else ():
            if index >= 0 and is_float(self.model, index):
                yield from self._parts(index)

    def make_room(self, rows: list[list[_Site]], margin: float) -> None:
        """R for each site; those whose masks share a part share the greatest, so that a mask is one number in all."""
        sites = [site for row in rows for site in row]
        for row in rows:
            seen = self.ranges[self.names[row[-1].scores]]
            for site in row:
                site.room = seen.high - seen.low + margin / site.factor
        rising = True
        while rising:
            rising = False
            for site in sites:
                room = max(other.room for other in sites if site.parts & other.parts)
                rising, site.room = rising or room > site.room, room

    def cut(self, site: _Site) -> None:
        """Constants and inputs of a mask within [−R, R], and the ranges that follow from it."""
        for part in sorted(site.parts):
            self.limits[part] = site.room
            values = constant(self.model, part)
            if values is not None and np.abs(values).max() > site.room:
                cut = np.clip(values, -site.room, site.room).astype(np.float32)
                self.model.subgraphs[0].tensors[part].buffer = add_constant(self.model, cut)
                self._note(part, _ends(values), _ends(cut), WHY_MASK)
        for part in sorted(site.parts):
            if (span := self._span(part)) is not None and constant(self.model, part) is None:
                self._set(part, span, WHY_MASK)

    def widen(self, row: list[_Site], margin: float) -> None:
        """The sums of one softmax, from the innermost outwards."""
        now = self.ranges[self.names[row[-1].scores]]
        floor = now.low - margin / row[-1].factor
        for site in reversed(row):
            mask = self._span(site.mask) or Range(-site.room, 0.0)
            deepest, highest = (mask.low, mask.high) if site.sign > 0 else (-mask.high, -mask.low)
            now = Range(floor, now.high) if site.flat else Range(now.low + deepest, now.high + max(highest, 0.0))
            self._set(site.total, now, WHY_SUM)
            for index, factor in site.below:
                self._set(index, _times(now, factor), WHY_SUM)
            scale = site.below[0][1] if site.below else 1.0
            now, floor = _times(now, scale), floor * scale

    def _set(self, tensor: int, after: Range, why: str) -> None:
        before = self.ranges.get(self.names[tensor], after)
        if before != after:
            self.ranges[self.names[tensor]] = after
            self._note(tensor, before, after, why)

    def _note(self, tensor: int, before: Range, after: Range, why: str) -> None:
        name = self.names[tensor]
        first = self.changes[name].before if name in self.changes else before
        self.changes[name] = RangeChange(name, first, after, why)


def _combined(kind: str, first: Range, second: Range) -> Range:
    """What a sum, difference, product of two, or a choice between two, lies between."""
    if kind == "ADD":
        return Range(first.low + second.low, first.high + second.high)
    if kind == "SUB":
        return Range(first.low - second.high, first.high - second.low)
    if kind == "MUL":
        ends = [one * other for one in (first.low, first.high) for other in (second.low, second.high)]
        return Range(min(ends), max(ends))
    if kind in ("MINIMUM", "MAXIMUM"):
        extreme = min if kind == "MINIMUM" else max
        return Range(extreme(first.low, second.low), extreme(first.high, second.high))
    return Range(min(first.low, second.low), max(first.high, second.high))


def _ends(values: np.ndarray) -> Range:
    return Range(float(values.min()), float(values.max()))


def _times(one: Range, factor: float) -> Range:
    return Range(one.low * factor, one.high * factor)
