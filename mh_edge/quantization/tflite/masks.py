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
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mh_edge.quantization.scheme import Range, RangeChange, Ranges
from mh_edge.quantization.tflite.mask_copies import separate
from mh_edge.quantization.tflite.mask_sites import Site, Sites
from mh_edge.quantization.tflite.model import add_constant, constant

WHY_MASK = "an attention mask: further down than the scores reach it hides no better"
WHY_SUM = "scores with a mask: what is hidden stays just below what the softmax can tell from nothing"


def keep_masks(model: Any, ranges: Ranges, margin: float) -> tuple[Ranges, tuple[RangeChange, ...], dict[str, str]]:
    """Ranges with which masks hide in integers too, what was changed, and why operations (by name) stay in float.
    Constants of `model` that are parts of a mask are cut off, and it may get copies of operations that make masks.
    margin: exp(−margin) is no weight.
    """
    masks = _Masks(model, ranges)
    rows = masks.rows(margin)
    copied = separate(masks, [site for row in rows if not row.obstacle for site in row.sites])
    if copied:
        masks = _Masks(model, {**ranges, **{new: ranges[old] for new, old in copied.items() if old in ranges}})
        rows = masks.rows(margin)
    hiding = [row.sites for row in rows if not row.obstacle and row.sites]
    masks.share_room(hiding)
    reasons = {name: why for row in rows for name, why in masks.in_float(row).items()}
    for site in (site for row in hiding for site in row):
        masks.cut(site)
    for row in hiding:
        masks.widen(row, margin)
    return masks.ranges, tuple(masks.changes.values()), reasons


class _Masks(Sites):
    """Masks with the ranges as they become, and the changes by tensor name."""

    def __init__(self, model: Any, ranges: Ranges) -> None:
        super().__init__(model, ranges)
        self.changes: dict[str, RangeChange] = {}

    def share_room(self, rows: Sequence[Sequence[Site]]) -> None:
        """The greatest R for all sites whose masks share what is cut off, so that it is one number in all."""
        sites = [site for row in rows for site in row]
        rising = True
        while rising:
            rising = False
            for site in sites:
                room = max(other.room for other in sites if other is site or site.deep & other.deep)
                rising, site.room = rising or room > site.room, room

    def cut(self, site: Site) -> None:
        """Constants and inputs of a mask within [−R, R], and the ranges that follow from it."""
        for part in sorted(site.parts):
            self.limits[part] = max(site.room, self.limits.get(part, 0.0))
            values = constant(self.model, part)
            if values is not None and np.abs(values).max() > site.room:
                cut = np.clip(values, -site.room, site.room).astype(np.float32)
                self.model.subgraphs[0].tensors[part].buffer = add_constant(self.model, cut)
                self._note(part, _ends(values), _ends(cut), WHY_MASK)
        for part in sorted(site.parts):
            if (span := self.span(part)) is not None and constant(self.model, part) is None:
                self._set(part, span, WHY_MASK)

    def widen(self, row: Sequence[Site], margin: float) -> None:
        """The sums of one softmax, from the innermost outwards."""
        now = self.ranges[self.names[row[-1].scores]]
        floor = now.low - margin / row[-1].factor
        for site in reversed(row):
            mask = self.span(site.mask) or Range(-site.room, 0.0)
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


def _ends(values: np.ndarray) -> Range:
    return Range(float(values.min()), float(values.max()))


def _times(one: Range, factor: float) -> Range:
    return Range(one.low * factor, one.high * factor)
