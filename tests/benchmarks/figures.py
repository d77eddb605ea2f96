"""The arithmetic: percentiles of samples, ratios, geometric means and their 95 % intervals over runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PERCENTILE = 0.2
"""Of the samples of one run: what else the machine does only ever adds time, and the least sample is an outlier too."""

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95 % quantiles of Student's distribution by degrees of freedom."""


def percentile(samples: Sequence[float], part: float = PERCENTILE) -> float:
    """The sample below which `part` of them lie."""
    return sorted(samples)[math.floor(part * (len(samples) - 1))]


@dataclass(frozen=True)
class Ratio:
    """A geometric mean of ratios with its 95 % interval; low = high = mean when there was one run."""

    mean: float
    low: float
    high: float
    runs: int

    @property
    def spread(self) -> float:
        """Half of the interval, relative: the true mean is within mean × (1 ± spread)."""
        return math.sqrt(self.high / self.low) - 1 if self.low > 0 else math.inf


def interval(ratios: Sequence[float]) -> Ratio:
    """exp(mean of logs ± t s / √n) of one ratio for each run. Raises ValueError without any."""
    if not ratios:
        raise ValueError("no run gave a ratio")
    logs = [math.log(ratio) for ratio in ratios]
    mean, count = statistics.fmean(logs), len(logs)
    half = 0.0
    if count > 1:
        freedom = min(count - 1, max(STUDENT))
        half = STUDENT[freedom] * statistics.stdev(logs) / math.sqrt(count)
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half), count)


def per_run(
    runs: Sequence[Mapping[str, Mapping[str, float]]], cells: Sequence[str], ours: str, peer: str
) -> list[float]:
    """For each run the geometric mean over the cells of time(ours) / time(peer).

    runs: cell -> candidate -> seconds. Only cells that every run measured count, so that all runs average the same.
    """
    whole = [cell for cell in cells if all({ours, peer} <= run.get(cell, {}).keys() for run in runs)]
    if not whole:
        return []
    return [statistics.geometric_mean(run[cell][ours] / run[cell][peer] for cell in whole) for run in runs]
