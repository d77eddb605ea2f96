"""One candidate while feeds go through it: its session, what deviated where, and whether it keeps state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mh_edge.errors import InputError
from mh_edge.matching import Match
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature, Tensor
from mh_edge.verification.compare import Deviation, deviation
from mh_edge.verification.feeds import Feed, nudged
from mh_edge.verification.reference import Expected, Reference, Refused

STATE_ULPS = 4.0
"""Two runs of one feed may differ by this much of the output's scale: threads may add in another order. State changes
whole digits.
"""

FLIP_NUDGES = 4  # feeds one unit in the last place away that are tried before an integer output counts as wrong


@dataclass(frozen=True)
class FloatRecord:
    """One float output on one feed, measured against the float32 reference and, where there is one, the float64
    truth.
    """

    feed: Feed
    output: Tensor
    plain: Deviation
    truth: Deviation | None


@dataclass(frozen=True)
class ExactRecord:
    """One integer or boolean output on one feed: how many elements, how many flips, and the first that is simply
    wrong.
    """

    feed: Feed
    output: Tensor
    size: int
    flips: int
    wrong: int
    deviation: Deviation


class Trial:
    """Runs a candidate on feed after feed, each twice: again right after the next feed, so that only two are held at a
    time.
    """

    def __init__(
        self,
        path: str,
        session: Session,
        match: Match,
        reference: Reference,
        signature: Signature,
        tolerance: tuple[float, float] | None,
    ) -> None:
        self.path = path
        self.session = session
        self.match = match
        self.floats: list[FloatRecord] = []
        self.exacts: list[ExactRecord] = []
        self.broken: list[tuple[Feed, str]] = []
        self._reference = reference
        self._signature = signature
        self._tolerance = tolerance
        self._before: tuple[Feed, Mapping[str, np.ndarray]] | None = None

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The candidate's outputs under the reference's names."""
        return self.match.results(self.session.run(self.match.feeds(arrays)))

    def take(self, feed: Feed, expected: Expected) -> None:
        """Run and measure a feed, then run the one before it again."""
        try:
            outputs = self.run(feed.arrays)
        except InputError as error:
            self.broken.append((feed.light(), error.message))
            return
        before, self._before = self._before, (feed, outputs)
        if self._shapes_fit(feed, expected, outputs):
            for tensor in self._signature.outputs:
                self._measure(feed, tensor, expected, outputs[tensor.name])
        if before is not None:
            self._again(*before)

    def fresh(self) -> Trial:
        """A trial of the same candidate that has seen nothing yet."""
        return type(self)(self.path, self.session, self.match, self._reference, self._signature, self._tolerance)

    def finish(self) -> None:
        """Run the last feed again."""
        if self._before is not None:
            self._again(*self._before)
            self._before = None

    def _shapes_fit(self, feed: Feed, expected: Expected, outputs: Mapping[str, np.ndarray]) -> bool:
        for name, value in expected.plain.items():
            if outputs[name].shape != value.shape:
                self.broken.append(
                    (feed.light(), f"output {name!r} has the shape {outputs[name].shape} instead of {value.shape}.")
                )
                return False
        return True

    def _measure(self, feed: Feed, tensor: Tensor, expected: Expected, got: np.ndarray) -> None:
        plain = expected.plain[tensor.name]
        if plain.size == 0:
            return  # nothing to compare in this one: a slice of a sequence of one step, say
        truth = None if expected.truth is None else expected.truth[tensor.name]
        kept = feed.light()
        if np.issubdtype(plain.dtype, np.floating):
            against = None if truth is None else deviation(tensor, truth, got, plain, None)
            plainly = deviation(tensor, plain, got, plain, self._tolerance)
            self.floats.append(FloatRecord(kept, tensor, plainly, against))
            return
        differ = plain != got
        flips = self._flips(feed, tensor.name, plain, truth) if differ.any() else np.zeros_like(differ)
        wrong = np.where(differ & ~flips, got, plain)
        counts = int((differ & flips).sum()), int((differ & ~flips).sum())
        self.exacts.append(
            ExactRecord(kept, tensor, differ.size, *counts, deviation(tensor, plain, wrong, plain, None))
        )

    def _flips(self, feed: Feed, name: str, plain: np.ndarray, truth: np.ndarray | None) -> np.ndarray:
        """Elements that the reference itself changes when its inputs change in the last place, or in float64."""
        flips = np.zeros(plain.shape, bool) if truth is None else np.asarray(truth != plain)
        for seed in range(FLIP_NUDGES):
            try:
                flips |= self._reference.plain(nudged(self._signature, feed.arrays, seed))[name] != plain
            except Refused:
                continue
        return flips

    def _again(self, feed: Feed, outputs: Mapping[str, np.ndarray]) -> None:
        try:
            second = self.run(feed.arrays)
        except InputError as error:
            self.broken.append((feed.light(), f"it ran once and not a second time: {error.message}"))
            return
        for name, once in outputs.items():
            apart = _apart(once, second[name])
            if apart > 0:
                reason = f"it keeps state between calls: output {name!r} differs by {apart:.3g} the second time."
                self.broken.append((feed.light(), reason))
                return


def _apart(once: np.ndarray, twice: np.ndarray) -> float:
    """The greatest difference of two runs, 0 when that is within a few units in the last place of the output's
    scale.
    """
    if once.shape != twice.shape:
        return float("inf")
    if once.dtype.kind != "f":
        return float((once != twice).any())
    same = (once == twice) | (np.isnan(once) & np.isnan(twice))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        apart = float(np.nan_to_num(np.abs(once.astype("f8") - twice.astype("f8"))[~same], nan=np.inf).max())
    scale = float(np.abs(once[np.isfinite(once)]).max(initial=0.0))
    return apart if apart > STATE_ULPS * float(np.finfo(once.dtype).eps) * scale else 0.0
