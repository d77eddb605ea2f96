"""Sums that grow batch by batch, in float64: how far two outputs are apart, and how often they decide alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mh_edge.quantization.judging.verdict import Change

THRESHOLDS = (0.5, 0.0)
"""Where one number turns from class 0 to class 1: a probability, or a logit."""

STILL = 1e-3
"""A column whose deviation is smaller, beside its largest number, hardly changes: by less than a quarter of a step of 8
bits, so that a single step would count as many deviations.
"""


def _zeros() -> np.ndarray:
    return np.zeros(1)  # of any number of columns, once some are added


@dataclass
class Spread:
    """Mean, standard deviation and limits of each column of an output; numbers that are not finite are left out.

    Blocks are merged by M = M_a + M_b + d² n_a n_b / n, d the difference of their means (Chan, Golub, LeVeque 1979):
    sums of squares would cancel where the mean is large.
    """

    count: np.ndarray = field(default_factory=_zeros)
    mean: np.ndarray = field(default_factory=_zeros)
    squares: np.ndarray = field(default_factory=_zeros)
    low: np.ndarray = field(default_factory=lambda: np.full(1, math.inf))
    high: np.ndarray = field(default_factory=lambda: np.full(1, -math.inf))
    left_out: int = 0

    def add(self, block: np.ndarray) -> None:
        """block: (numbers, columns) in float64."""
        known = np.isfinite(block)
        count = known.sum(0)
        self.left_out += block.size - int(count.sum())
        mean = np.where(known, block, 0.0).sum(0) / np.maximum(count, 1)
        apart, total = mean - self.mean, self.count + count
        self.squares = self.squares + (np.where(known, block - mean, 0.0) ** 2).sum(0)
        self.squares += apart**2 * self.count * count / np.maximum(total, 1)
        self.mean = self.mean + apart * count / np.maximum(total, 1)
        self.count = total
        self.low = np.minimum(self.low, np.where(known, block, math.inf).min(0, initial=math.inf))
        self.high = np.maximum(self.high, np.where(known, block, -math.inf).max(0, initial=-math.inf))

    def pooled(self) -> Spread:
        """That of all columns as one."""
        count = self.count.sum(keepdims=True)
        mean = (self.count * self.mean).sum(keepdims=True) / np.maximum(count, 1)
        squares = (self.squares + self.count * (self.mean - mean) ** 2).sum(keepdims=True)
        low, high = self.low.min(keepdims=True), self.high.max(keepdims=True)
        return Spread(count, mean, squares, low, high, self.left_out)

    @property
    def deviation(self) -> np.ndarray:
        """The standard deviations; exactly 0 where all numbers are the same."""
        return np.where(self.low >= self.high, 0.0, np.sqrt(self.squares / np.maximum(self.count, 1)))

    @property
    def constant(self) -> np.ndarray:
        """Which columns hardly change from sample to sample: they have no scale of their own."""
        largest = np.maximum(np.abs(self.low), np.abs(self.high))
        return np.asarray((self.count > 0) & (self.deviation <= STILL * largest))


@dataclass
class Errors:
    """r, the float model's output, against y, the quantized one's, column by column; see Change. A y that is not finite
    where r is has an infinite error.
    """

    samples: int = 0
    count: np.ndarray = field(default_factory=_zeros)
    signal: np.ndarray = field(default_factory=_zeros)
    noise: np.ndarray = field(default_factory=_zeros)
    total: np.ndarray = field(default_factory=_zeros)
    largest: np.ndarray = field(default_factory=_zeros)
    cosines: float = 0.0
    not_finite: int = 0

    def add(self, r: np.ndarray, y: np.ndarray, columns: int = 1) -> None:
        """r, y: (samples, numbers) in float64; number i belongs to column i modulo `columns`."""
        known, whole = np.isfinite(r), np.isfinite(y)
        r, y = np.where(known, r, 0.0), np.where(known & whole, y, 0.0)
        broken = known & ~whole
        error = np.where(broken, np.inf, np.abs(r - y))
        self.samples += len(r)
        self.not_finite += int(broken.sum())
        norms = np.sqrt((r * r).sum(1)) * np.sqrt((y * y).sum(1))
        # Two zero vectors are the same; one of them alone has no direction to share.
        alike = np.where((r == y).all(1), 1.0, np.divide((r * y).sum(1), norms, where=norms > 0, out=np.zeros(len(r))))
        self.cosines += float(np.where(broken.any(1), 0.0, alike).sum())
        known, r, error = (array.reshape(-1, columns) for array in (known, r, error))
        self.count = self.count + known.sum(0)
        self.signal = self.signal + (r * r).sum(0)
        self.noise = self.noise + (error * error).sum(0)
        self.total = self.total + error.sum(0)
        self.largest = np.maximum(self.largest, error.max(0, initial=0.0))

    def change(self, spread: Spread, agreement: float | None, *, apart: bool = False) -> Change:
        """spread: of r, on the same samples. apart: whether each column is measured by itself, and the worst counts."""
        pooled = spread.pooled()
        count, signal, noise, total = self.count, self.signal, self.noise, self.total
        deviation, largest = spread.deviation, self.largest
        if apart:
            level = signal.sum() / max(count.sum(), 1)
            signal = np.where(spread.constant, level * count, signal)
            deviation = np.where(spread.constant, pooled.deviation, deviation)
        else:
            count, signal, noise, total = (one.sum(keepdims=True) for one in (count, signal, noise, total))
            deviation, largest = pooled.deviation, largest.max(keepdims=True)
        sqnr = _decibels(signal, noise)
        mean, most = _per(total / np.maximum(count, 1), deviation), _per(largest, deviation)
        worst = int(sqnr.argmin()), int(mean.argmax()), int(most.argmax())
        return Change(
            sqnr_db=float(sqnr[worst[0]]),
            mean_error_std=float(mean[worst[1]]),
            max_error_std=float(most[worst[2]]),
            cosine=self.cosines / self.samples,
            top1_agreement=agreement,
            not_finite=self.not_finite,
            columns=worst if apart else None,
        )


def _decibels(signal: np.ndarray, noise: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(noise == 0, math.inf, 10 * np.log10(signal / noise))


def _per(error: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / deviation)


def decisions(kind: str, values: np.ndarray) -> np.ndarray:
    """What an output decides, as integers (ways, positions); -1 where it is NaN. There are two ways to read one number:
    against each of THRESHOLDS.

    kind: "argmax" of the last axis, "binary", or "values" that are decisions themselves.
    """
    if kind == "values":
        return values.reshape(1, -1).astype(np.int64)
    if kind == "binary":
        flat = values.reshape(-1)
        ways = np.stack([flat > threshold for threshold in THRESHOLDS]).astype(np.int64)
        return np.where(np.isnan(flat), -1, ways)
    rows = values.reshape(-1, values.shape[-1])
    return np.where(np.isnan(rows).any(1), -1, rows.argmax(1))[None]


@dataclass
class Answers:
    """How often the decisions of the float model and of the quantized one are the same, and, where the right ones are
    known, how often each is right; one count for each way to read them.
    """

    count: int = 0
    labelled: int = 0
    counts: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, ours: np.ndarray, theirs: np.ndarray, right: np.ndarray | None) -> None:
        """ours, theirs: (ways, positions), of the float and the quantized model. right: (positions,)."""
        self.count += ours.shape[1]
        found = {"agree": ours == theirs}
        if right is not None:
            self.labelled += len(right)
            good, kept = ours == right, theirs == right
            found |= {"right_float": good, "right": kept, "worse": good & ~kept, "better": kept & ~good}
        for name, hits in found.items():
            self.counts[name] = self.counts.get(name, 0) + hits.sum(1)

    def number(self, name: str, way: int) -> int:
        """agree, right_float, right, worse (right in float alone) or better (right in the quantized model alone)."""
        return int(self.counts[name][way])
