"""Sums that grow batch by batch, in float64: how far two outputs are apart, and how often they decide alike."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from mh_edge.quantization.judging.verdict import Change

THRESHOLDS = (0.5, 0.0)
"""Where one number turns from class 0 to class 1: a probability, or a logit."""


@dataclass
class Spread:
    """Mean, standard deviation and limits of all numbers of an output; those that are not finite are left out.

    Blocks are merged by M = M_a + M_b + d² n_a n_b / n, d the difference of their means (Chan, Golub, LeVeque 1979):
    sums of squares would cancel where the mean is large.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    left_out: int = 0

    def add(self, block: np.ndarray) -> None:
        numbers = block[np.isfinite(block)]
        self.left_out += block.size - numbers.size
        if not numbers.size:
            return
        mean, total = float(numbers.mean()), self.count + numbers.size
        apart = mean - self.mean
        self.squares += float(((numbers - mean) ** 2).sum()) + apart**2 * self.count * numbers.size / total
        self.mean += apart * numbers.size / total
        self.count = total
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))

    @property
    def deviation(self) -> float:
        """The standard deviation; exactly 0 where all numbers are the same."""
        return 0.0 if self.low >= self.high else math.sqrt(self.squares / self.count)


@dataclass
class Errors:
    """r, the float model's output, against y, the quantized one's; see Change. A y that is not finite where r is has an
    infinite error.
    """

    count: int = 0
    samples: int = 0
    signal: float = 0.0
    noise: float = 0.0
    total: float = 0.0
    largest: float = 0.0
    cosines: float = 0.0
    not_finite: int = 0

    def add(self, r: np.ndarray, y: np.ndarray) -> None:
        """r, y: (samples, numbers) in float64."""
        known, whole = np.isfinite(r), np.isfinite(y)
        r, y = np.where(known, r, 0.0), np.where(known & whole, y, 0.0)
        broken = known & ~whole
        error = np.where(broken, np.inf, np.abs(r - y))
        self.count += int(known.sum())
        self.samples += len(r)
        self.signal += float((r * r).sum())
        self.noise += float((error * error).sum())
        self.total += float(error.sum())
        self.largest = max(self.largest, float(error.max(initial=0.0)))
        self.not_finite += int(broken.sum())
        norms = np.sqrt((r * r).sum(1)) * np.sqrt((y * y).sum(1))
        # Two zero vectors are the same; one of them alone has no direction to share.
        alike = np.where((r == y).all(1), 1.0, np.divide((r * y).sum(1), norms, where=norms > 0, out=np.zeros(len(r))))
        self.cosines += float(np.where(broken.any(1), 0.0, alike).sum())

    def change(self, spread: Spread, agreement: float | None) -> Change:
        """spread: of r, on the same samples."""
        if self.noise == 0:
            sqnr = math.inf
        elif self.signal == 0 or math.isinf(self.noise):
            sqnr = -math.inf
        else:
            sqnr = 10 * math.log10(self.signal / self.noise)
        mean = self.total / self.count if self.count else 0.0
        return Change(
            sqnr_db=sqnr,
            mean_error_std=_per(mean, spread.deviation),
            max_error_std=_per(self.largest, spread.deviation),
            cosine=self.cosines / self.samples,
            top1_agreement=agreement,
            not_finite=self.not_finite,
        )


def _per(error: float, deviation: float) -> float:
    if error == 0:
        return 0.0
    return error / deviation if deviation else math.inf


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
