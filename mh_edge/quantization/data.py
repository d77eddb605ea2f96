"""Calibration and evaluation data: real inputs, read batch by batch, so that a set may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mh_edge.quantization.scheme import Arrays

LABELS = "labels"
"""The name under which a set holds the right answers, one per sample."""

Given = str | Path | Mapping[str, np.ndarray] | Callable[[], Iterator[Arrays]]
"""An .npz, a folder of .npy/.npz, "package.module:function", arrays by name, or a function that yields feeds."""


@dataclass(frozen=True)
class Batch:
    """Some samples: feeds that fit the signature, and their labels where the set has them. first: index of the first
    sample in the set.
    """

    feeds: Arrays
    labels: np.ndarray | None
    first: int

    @property
    def count(self) -> int:
        return len(next(iter(self.feeds.values())))


@dataclass(frozen=True)
class Data:
    """A set that can be read again and again. label: what it is called in messages and in the manifest."""

    label: str
    batches: Callable[[], Iterator[Batch]]
