"""What a quantized model lost, measured: float against quantized on the same samples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ACCURACY = "accuracy"
"""What the share of right answers is called."""


@dataclass(frozen=True)
class Change:
    """One output of a quantized model (y) beside the float one's (r), over all samples.

    sqnr_db: 10 log10(sum r² / sum (r - y)²). mean_error_std, max_error_std: mean and max of |r - y| in units of the
    standard deviation of r. cosine: mean over samples of (r · y) / (|r| |y|). top1_agreement: share of samples (of
    positions, where there are several) whose greatest entry stands at the same place; None when the output is not
    class-like. not_finite: numbers that are NaN or infinite in y and not in r; their error is infinite. accuracy,
    accuracy_float: share right, where the output has labels.

    columns: of the last axis, where each of the first three figures comes from. Numbers that are no scores of classes
    may be metres beside degrees, so each column is measured by its own sums and deviation, and the worst one counts; a
    column that hardly changes, which has none, by those of the whole output. None where all numbers are measured as
    one: scores, and a last axis that is free or longer than COLUMNS (see judge).
    """

    sqnr_db: float
    mean_error_std: float
    max_error_std: float
    cosine: float
    top1_agreement: float | None = None
    not_finite: int = 0
    columns: tuple[int, int, int] | None = None
    accuracy_float: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class Verdict:
    """Float against quantized. on: what it was measured on, in words. batch: the samples a call that the figures were
    taken at; where the range of an activation is taken anew at every call they depend on it. accuracy, accuracy_float:
    share right, of the labelled output that lost most, or the mean of the user's metric (metric: the name of either).
    share: whether these are shares of 1; False for a metric whose values leave [0, 1]. worse, better: samples
    (positions, where there are several) that only the float, only the quantized model got right; with a metric, that it
    rates higher in the one or the other. latency_ratio: time of quantized / float at `latency_batch` samples a call,
    interleaved in one run; latency_interval: 95 %. latency_ms: (float, quantized). latency_words: what of that stands
    out of the noise. size_ratio: bytes / bytes.
    """

    on: str
    samples: int
    outputs: Mapping[str, Change]
    metric: str | None = None
    accuracy_float: float | None = None
    accuracy: float | None = None
    share: bool = True
    worse: int | None = None
    better: int | None = None
    size_ratio: float | None = None
    latency_ratio: float | None = None
    latency_interval: tuple[float, float] | None = None
    latency_ms: tuple[float, float] | None = None
    latency_batch: int | None = None
    latency_words: str | None = None
    batch: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def top1_agreement(self) -> float | None:
        """Of the class-like output that agrees least."""
        return min(
            (one.top1_agreement for one in self.outputs.values() if one.top1_agreement is not None), default=None
        )

    @property
    def sqnr_db(self) -> float:
        """Of the output that lost most."""
        return min(one.sqnr_db for one in self.outputs.values())

    @property
    def mean_error_std(self) -> float:
        """Of the output that errs most."""
        return max(one.mean_error_std for one in self.outputs.values())

    @property
    def max_error_std(self) -> float:
        """Of the output with the greatest error."""
        return max(one.max_error_std for one in self.outputs.values())

    def to_json(self) -> dict[str, Any]:
        """The keys of the `metrics` object of `mh-edge quantize --json`."""
        return {
            "on": self.on,
            "samples": self.samples,
            "batch": self.batch,
            "top1_agreement": self.top1_agreement,
            "metric": self.metric,
            "accuracy_float": self.accuracy_float,
            "accuracy": self.accuracy,
            "share": self.share,
            "worse": self.worse,
            "better": self.better,
            "sqnr_db": self.sqnr_db,
            "mean_error_std": self.mean_error_std,
            "max_error_std": self.max_error_std,
            "cosine": min(one.cosine for one in self.outputs.values()),
            "size_ratio": self.size_ratio,
            "latency_ratio": self.latency_ratio,
            "latency_interval": self.latency_interval,
            "latency_ms": self.latency_ms,
            "latency_batch": self.latency_batch,
            "latency_words": self.latency_words,
            "outputs": {name: vars(change) for name, change in self.outputs.items()},
            "notes": list(self.notes),
        }


def of_user(metric: str | None) -> bool:
    """Whether that is the name of a user's metric."""
    return metric is not None and metric != ACCURACY and not metric.startswith(f"{ACCURACY} of ")
