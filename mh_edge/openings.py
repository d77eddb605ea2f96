"""What can be said of a time after files were opened several times, and how much of a difference is noise.

Where the memory of a session lies moves its time by several hundredths for as long as it is open, so it is measured in
several openings, and the interval is that of the openings, not of the calls. In each of them one file is opened twice:
by how much those two differ is this machine's noise, and a difference inside it is none.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

OPENINGS = 5

STUDENT = 2.776
"""97.5 % of Student's t distribution with OPENINGS - 1 degrees of freedom."""

LEAST_NOISE = 1.02
"""Sessions of one file differ by that factor, which a few of them need not show."""

Interval = tuple[float, float]


def typical(values: ArrayLike) -> tuple[float, Interval]:
    """The geometric mean of what OPENINGS openings gave -> it, and where that of another such run lies in 95 of 100:
    mean · exp(± t · s · sqrt(2 / OPENINGS)), with s the standard deviation of the logarithms.
    """
    logs = np.log(values)
    middle = float(logs.mean())
    # The means of two runs differ by sqrt(2 / OPENINGS) of what two openings of them differ from their mean.
    apart = STUDENT * float(logs.std(ddof=1)) * math.sqrt(2 / OPENINGS)
    return math.exp(middle), (math.exp(middle - apart), math.exp(middle + apart))


def noise(first: ArrayLike, again: ArrayLike) -> float:
    """The greatest factor by which two sessions of one file differ in an opening, LEAST_NOISE at least."""
    return max(LEAST_NOISE, math.exp(float(np.abs(np.log(again) - np.log(first)).max())))


def differs(interval: Interval, noise: float) -> bool:
    """Whether a ratio with this interval is beyond the noise."""
    return interval[0] > noise or interval[1] < 1 / noise
