"""How much error is allowed: the noise of float32, pooled over all elements of a column and all feeds of a class.

allowed = min(max(FACTOR * noise, FLOOR), CAP), where CAP = 1e-3 of the scale of the output. An error between `allowed`
and max(FACTOR * noise, FLOOR) proves nothing, either way: the feed is inconclusive.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mh_edge.signature import Signature, Tensor
from mh_edge.verification.compare import columns, errors
from mh_edge.verification.reference import FLOAT64, ORDERS, Expected

FACTOR = 16.0
"""Two correct float32 programs rarely differ in error by more than 4; 4 more for the greatest of many elements. A 1 %
change of a weight is 1e5 times the noise."""

FLOOR_ULPS = 16.0
"""Runtimes approximate exp, tanh and erf to a few units in the last place where Keras may be exact by chance: ONNX
Runtime's tanh overshoots 1 by 4 of them, and a recurrent layer adds such steps up."""

CAP = 1e-3
"""Beyond a thousandth of the output's scale an error can no longer be told from a wrong weight."""

FEW_SAMPLES = 32
"""The greatest of fewer errors than this says little: one of a single number is too small by 16 in one case of 25."""

LEAST_COLUMN = 1e-3
"""A column of (nearly) zeros counts as this share of the largest: what cancels there was of the size of the others."""


@dataclass(frozen=True)
class Allowance:
    """Limits of one output in one class of feeds, by column; expected errors are measured against float64 or
    float32.
    """

    yardstick: str
    noise: float
    allowed: np.ndarray
    explained: np.ndarray

    @property
    def against_truth(self) -> bool:
        return self.yardstick == FLOAT64


class Pool:
    """Collects noise and scale while feeds are run. Keys are (class of feeds, output)."""

    def __init__(self, signature: Signature) -> None:
        self._floats = [tensor for tensor in signature.outputs if np.issubdtype(np.dtype(tensor.dtype), np.floating)]
        self._scale: dict[tuple[str, str], np.ndarray] = {}
        self._samples: Counter[tuple[str, str]] = Counter()
        self._own: dict[tuple[str, str], np.ndarray] = {}
        self._spread: dict[tuple[str, str], np.ndarray] = {}

    def add(self, kind: str, expected: Expected) -> None:
        """The outputs of one feed; with a truth, float32's own error against it."""
        for tensor in self._floats:
            plain, key = expected.plain[tensor.name], (kind, tensor.name)
            size = np.abs(np.where(np.isfinite(plain), plain, 0)).astype(np.float64)
            _raise(self._scale, key, columns(tensor, size).max(axis=0, initial=0.0))
            self._samples[key] += plain.size
            if expected.truth is not None:
                truth = expected.truth[tensor.name]
                _raise(self._own, key, columns(tensor, errors(truth, plain, plain)).max(axis=0, initial=0.0))

    def add_order(self, kind: str, plain: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> None:
        """The outputs of one feed, and the same in another order."""
        for tensor in self._floats:
            a, b = plain[tensor.name], other[tensor.name]
            both = np.isfinite(a) & np.isfinite(b)
            error = np.where(both, errors(a, np.where(both, b, a), a), 0.0)
            _raise(self._spread, (kind, tensor.name), columns(tensor, error).max(axis=0, initial=0.0))

    def needs_orders(self, kind: str) -> bool:
        """Whether float64 is no yardstick for some output in this class: there is none, or float32 means something else
        there.

        (A mask of -1e9 swallows the scores in float32 and leaves them in float64: both are right, and the artifact is
        float32.)
        """
        return any(not self._has_truth((kind, tensor.name)) for tensor in self._floats)

    def _has_truth(self, key: tuple[str, str]) -> bool:
        own = self._own.get(key)
        return own is not None and bool(own.max(initial=0.0) <= CAP * self._scale[key].max(initial=0.0))

    def measured(self, kind: str) -> bool:
        """Whether some yardstick is there for every output of this class."""
        keys = [(kind, tensor.name) for tensor in self._floats]
        return all(self._has_truth(key) or key in self._spread for key in keys)

    def allowance(self, kind: str, tensor: Tensor) -> Allowance:
        """The limits of a float output in a class of feeds."""
        key = (kind, tensor.name)
        truth = self._has_truth(key)
        own = (self._own if truth else self._spread)[key]
        scale = self._ordinary(key)
        # Keras may be exact by chance. A column of many numbers is given what is usual, for its size, in the others;
        # one of a few numbers the greatest of the others; a class of a few numbers what is usual in the other classes.
        relative = own / scale
        many = self._samples[key] >= FEW_SAMPLES * own.size
        usual = float(np.median(relative) if many else relative.max(initial=0.0))
        if self._samples[key] < FEW_SAMPLES:
            usual = max(usual, self._usual(tensor.name))
        noise = np.maximum(own, usual * scale)
        floor = FLOOR_ULPS * float(np.finfo(tensor.dtype).eps) * scale
        explained = np.maximum(FACTOR * noise, floor)
        allowed = np.minimum(explained, np.maximum(CAP * self._scale[key].max(initial=0.0), floor))
        return Allowance(FLOAT64 if truth else ORDERS, float(noise.max(initial=0.0)), allowed, explained)

    def _usual(self, name: str) -> float:
        """Noise relative to scale in the middle one of the classes of ordinary values."""
        relative = [
            float((noise / self._ordinary((kind, of))).max(initial=0.0))
            for pool in (self._own, self._spread)
            for (kind, of), noise in pool.items()
            if of == name and not kind.startswith("large") and (pool is self._spread or self._has_truth((kind, of)))
        ]
        return float(np.median(relative)) if relative else 0.0

    def _ordinary(self, key: tuple[str, str]) -> np.ndarray:
        """The scale of each column in this class or, if greater, in the classes of ordinary values.

        (Where a feed of zeros cancels to nothing, the last places of ordinary values are still no errors.)
        """
        kinds = [of for of, name in self._scale if name == key[1] and (of == key[0] or not of.startswith("large"))]
        scale: np.ndarray = np.max([self._scale[of, key[1]] for of in kinds], axis=0)
        least = max(LEAST_COLUMN * float(scale.max(initial=0.0)), float(np.finfo(np.float64).tiny))
        return scale.clip(min=least)


def _raise(pool: dict[tuple[str, str], np.ndarray], key: tuple[str, str], value: np.ndarray) -> None:
    pool[key] = np.maximum(pool[key], value) if key in pool else value
