"""Where TFLite files hide steps: masks before a softmax, found from the softmax backwards.

What is added to scores is a mask when interval arithmetic over booleans, constants and inputs shows that it reaches
MASK_LEVEL and does not pass SLACK the other way; whose file it is makes no difference. Sums that reach as far by other
means stay in float with their softmax; so do those whose mask floats round scores by (at −1e9 they lie 64 apart), and
those that something else reads, where nothing may be cut off.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mh_edge.quantization.scheme import Range, Ranges
from mh_edge.quantization.tflite.model import Operation, constant, is_float, operations

MASK_LEVEL = 1000.0
"""What is added to scores and reaches −1000 hides them: trained scores are some tens, masks are −10000 and beyond."""

SLACK = 1.0
"""How far a mask may go the other way; some files write 1 − 10000 · hidden."""

SAME = frozenset({"RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "BROADCAST_TO", "EXPAND_DIMS", "SQUEEZE", "TILE"})
"""Operations that only move entries; litert-quantizer gives both sides one scale."""

SUMS = frozenset({"ADD", "SUB"})
CHOICES = frozenset({"SELECT", "SELECT_V2"})
OTHERS = frozenset({"MUL", "MINIMUM", "MAXIMUM"})
ARITHMETIC = SAME | SUMS | CHOICES | OTHERS

MAX = float(np.finfo(np.float32).max)

FINE = 0.25
"""Scores that a mask rounds to steps of this size are weighed almost as before."""

UNKNOWN = (
    "what is summed for its softmax reaches {:.3g}, and not by a mask that is known: no steps would be left for scores"
)
PARTLY = "the mask of {:.3g} swallows a part of its scores in float; −10000 would not, and could be in integers"
READ_ELSEWHERE = "its mask is an input that is read elsewhere too, where it must not be cut off"
SUM_ELSEWHERE = "its scores with their mask are read elsewhere too, where they must not be cut off"


@dataclass
class Site:
    """One place where a mask meets scores. sign: −1 where it is subtracted. flat: rows hidden whole are uniform.
    factor: c. parts: the tensors that the mask is computed from, itself included; deep: those that pass R. below:
    tensors between the sum and the softmax (or the next sum), nearest to the softmax first, each with the factor that
    it is of the sum. room: R.
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
    deep: frozenset[int] = frozenset()


@dataclass
class Row:
    """A softmax with the sites before it, the innermost last. between: operations from there to the softmax. obstacle:
    why these stay in float, with those that make their large numbers; empty when they need not.
    """

    sites: list[Site] = field(default_factory=list)
    between: list[Operation] = field(default_factory=list)
    obstacle: str = ""


class Sites:
    """Masks of the main graph. ranges: as they become. limits: of tensors that are cut off."""

    def __init__(self, model: Any, ranges: Ranges) -> None:
        self.model = model
        self.names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
        self.ranges = dict(ranges)
        self.operations = [one for one in operations(model) if one.graph == 0]
        self.maker = {made: one for one in self.operations for made in one.outputs}
        graph = model.subgraphs[0]
        self.readers = Counter([*map(int, graph.outputs), *(index for one in self.operations for index in one.inputs)])
        self.limits: dict[int, float] = {}

    def rows(self, margin: float) -> list[Row]:
        """Every softmax with the masks before it, and which of them must stay in float."""
        rows = [self._row(one) for one in self.operations if one.kind == "SOFTMAX"]
        for row in rows:
            for site in row.sites:
                seen = self.ranges[self.names[row.sites[-1].scores]]
                site.room = seen.high - seen.low + margin / site.factor
                site.deep = frozenset(part for part in site.parts if self._reaches(part) > site.room)
                if any(self.readers[index] > 1 for index in (site.total, *(each for each, _ in site.below))):
                    row.obstacle = row.obstacle or SUM_ELSEWHERE
        inputs = set(map(int, self.model.subgraphs[0].inputs))
        refusing = True
        while refusing:
            hiding = [row for row in rows if not row.obstacle]
            fixed = inputs & self.read_elsewhere([site for row in hiding for site in row.sites])
            refused = [row for row in hiding if any(site.deep & fixed for site in row.sites)]
            for row in refused:
                row.obstacle = READ_ELSEWHERE
            refusing = bool(refused)
        return rows

    def in_float(self, row: Row) -> dict[str, str]:
        """Name of each operation that stays in float for a softmax -> why: a mask in steps of its own depth would lose
        whatever else is added with it.
        """
        found: dict[str, str] = {}
        waiting = list(row.between) if row.obstacle else []
        while waiting:
            one = waiting.pop()
            found[one.name] = row.obstacle
            makers = [self.maker[index] for index in self.sources(one) if index in self.maker and self._is_large(index)]
            waiting += [maker for maker in makers if maker.kind in ARITHMETIC and maker.name not in found]
        return found

    def _is_large(self, tensor: int) -> bool:
        seen = self.ranges.get(self.names[tensor])
        return seen is not None and max(-seen.low, seen.high) >= MASK_LEVEL

    def _row(self, softmax: Operation) -> Row:
        """From a softmax's input backwards."""
        row, tensor, factor = Row(between=[softmax]), softmax.inputs[0], 1.0
        below: tuple[tuple[int, float], ...] = ()
        passed: list[Operation] = []
        while (one := self.maker.get(tensor)) is not None:
            passed.append(one)
            if one.kind in SAME:
                tensor, below = one.inputs[0], (*below, (tensor, 1.0))
            elif one.kind == "MUL" and (scaled := self._scaled(one)) is not None:
                other, by = scaled
                below = (*((index, before * by) for index, before in below), (tensor, by))
                tensor, factor = other, factor * by
            elif (found := self._masked(one)) is not None:
                mask, scores, sign, flat, lost = found
                row.obstacle = row.obstacle or lost
                parts = frozenset(self.parts(mask))
                row.sites.append(Site(tensor, scores, mask, sign, flat, factor, parts, below))
                row.between += passed
                tensor, below, passed = scores, (), []
            else:
                seen = self.ranges.get(self.names[tensor])
                if one.kind in SUMS | CHOICES | OTHERS and seen is not None and seen.low <= -MASK_LEVEL:
                    row.obstacle = UNKNOWN.format(seen.low)
                    row.between += passed
                break
        return row

    def read_elsewhere(self, sites: Sequence[Site]) -> set[int]:
        """Parts of masks that something else depends on: an output, or an operation that is no part of a mask."""
        parts = {part for site in sites for part in site.parts}
        masked = {(site.total, site.mask) for site in sites}
        found = parts & {int(index) for index in self.model.subgraphs[0].outputs}
        for one in self.operations:
            if not parts & set(one.outputs):
                found |= {index for index in one.inputs if index in parts and (one.outputs[0], index) not in masked}
        return {part for index in found for part in self.parts(index)}

    def _reaches(self, tensor: int) -> float:
        span = self.span(tensor)
        return 0.0 if span is None else max(-span.low, span.high)

    def _scaled(self, one: Operation) -> tuple[int, float] | None:
        """(the other operand, c) of a product with one constant c > 0."""
        for number, other in (one.inputs, one.inputs[::-1]):
            values = constant(self.model, number)
            if values is not None and values.size == 1 and values.item() > 0:
                return other, float(values.item())
        return None

    def _masked(self, one: Operation) -> tuple[int, int, int, bool, str] | None:
        """(mask, scores, sign, flat, why it must stay in float) of an operation that hides scores."""
        if one.kind not in SUMS | CHOICES:
            return None
        first, second = one.inputs[-2:]
        sign = -1 if one.kind == "SUB" else 1
        for mask, scores in ((second, first), (first, second))[: 1 if one.kind == "SUB" else 2]:
            span = self.span(mask)
            if span is None or self.names[scores] not in self.ranges:
                continue
            low, high = (span.low, span.high) if sign > 0 else (-span.high, -span.low)
            if low <= -MASK_LEVEL and high <= SLACK:
                if one.kind in CHOICES:
                    return mask, scores, sign, True, ""
                flat, exact = _left(low, self.ranges[self.names[scores]])
                lost = "" if flat or exact or self._shows_all_rows(mask) else PARTLY.format(low)
                return mask, scores, sign, flat, lost
        return None

    def _shows_all_rows(self, mask: int) -> bool:
        """Whether no row can be hidden whole."""
        values = constant(self.model, mask)
        return values is not None and values.ndim > 0 and bool((np.abs(values).min(axis=-1) < MASK_LEVEL).all())

    def span(self, tensor: int) -> Range | None:
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
            return self.span(one.inputs[0])
        if one.kind not in SUMS | CHOICES | OTHERS:
            return None
        first, second = (self.span(index) for index in one.inputs[-2:])
        return None if first is None or second is None else _combined(one.kind, first, second)

    def parts(self, tensor: int) -> Iterator[int]:
        """The float tensors that a tensor is computed from, itself included."""
        yield tensor
        one = self.maker.get(tensor)
        for index in self.sources(one) if one is not None else ():
            yield from self.parts(index)

    def sources(self, one: Operation) -> list[int]:
        """The float tensors that an operation reads."""
        return [index for index in one.inputs if index >= 0 and is_float(self.model, index)]


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


def _left(mask: float, scores: Range) -> tuple[bool, bool]:
    """Whether 32-bit floats leave nothing, and whether they leave all of the scores that `mask` is added to."""
    low, high = (np.float32(mask) + np.float32(score) for score in (scores.low, scores.high))
    return bool(low == high), bool(np.spacing(np.abs(np.float32(mask))) <= FINE)
