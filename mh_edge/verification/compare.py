"""Comparing two arrays: the greatest deviation of every column, and where it is.

A column is one index of the last axis where that has a fixed size (a feature, a class, a head), else the whole output:
columns may differ in scale by orders, and an error in a small one must not hide behind the noise of a large one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mh_edge.signature import Tensor

MOST_COLUMNS = 4096  # wider outputs (a vocabulary) are one column, so that the figures of every feed fit in memory


@dataclass(frozen=True)
class Deviation:
    """The worst element of each column, and the tolerances that would let everything pass.

    error: |got - expected|, infinite where only one of them is NaN or infinite; with explicit tolerances
    |got - expected| / (atol + rtol |expected|), in one column. position: of the worst element in the flat output.
    scale: the greatest finite |expected|.
    abs, rel: the least atol (with rtol 0) and the least rtol (with atol 0) under which all elements are equal.
    """

    error: np.ndarray
    position: np.ndarray
    expected: np.ndarray
    got: np.ndarray
    shape: tuple[int, ...]
    abs: float
    rel: float
    scale: float

    def index(self, column: int) -> tuple[int, ...]:
        """Where the worst element of a column is."""
        return tuple(int(axis) for axis in np.unravel_index(int(self.position[column]), self.shape))


def columns(tensor: Tensor, array: np.ndarray) -> np.ndarray:
    """The output as (rows, columns)."""
    width = tensor.shape[-1] if len(tensor.shape) > 1 else 1
    return array.reshape(-1, width if isinstance(width, int) and 0 < width <= MOST_COLUMNS else 1)


def errors(expected: np.ndarray, got: np.ndarray, like: np.ndarray) -> np.ndarray:
    """|got - expected| element by element, in float64.

    like: what the reference gives in float32. Where it is NaN or infinite, `got` must be the same (error 0, else
    infinite), however far float64 would have got.
    """
    wide = expected.astype(np.float64)
    finite = np.isfinite(like)
    with np.errstate(invalid="ignore", over="ignore"):
        # An array even where the output is one number, which NumPy would hand back as a number.
        error = np.asarray(np.abs(got.astype(np.float64) - np.where(np.isfinite(wide), wide, like)))
    error[np.isnan(error)] = np.inf
    same = (like == got) | (np.isnan(like) & np.isnan(got))
    error[~finite] = np.where(same, 0.0, np.inf)[~finite]
    return error


def deviation(
    tensor: Tensor,
    expected: np.ndarray,
    got: np.ndarray,
    like: np.ndarray,
    tolerance: tuple[float, float] | None,
) -> Deviation:
    """How far `got` is from `expected`; tolerance: explicit (atol, rtol), or None to keep plain errors by column."""
    error = errors(expected, got, like)
    magnitude = np.where(np.isfinite(like), np.abs(expected.astype(np.float64)), 0.0)
    relative = _quotient(error, magnitude)
    if tolerance is None:
        measure = columns(tensor, error)
    else:
        measure = _quotient(error, tolerance[0] + tolerance[1] * magnitude).reshape(-1, 1)
    if not measure.size:
        nothing = np.zeros(measure.shape[1])
        return Deviation(nothing, nothing.astype(int), nothing, nothing, got.shape, 0.0, 0.0, 0.0)
    row = measure.argmax(axis=0)
    position = row * measure.shape[1] + np.arange(measure.shape[1])
    return Deviation(
        error=measure[row, np.arange(measure.shape[1])],
        position=position,
        expected=np.where(np.isfinite(like), expected, like).reshape(-1)[position],
        got=got.reshape(-1)[position],
        shape=got.shape,
        abs=float(error.max()),
        rel=float(relative.max()),
        scale=float(magnitude.max()),
    )


def _quotient(error: np.ndarray, by: np.ndarray) -> np.ndarray:
    """error / by; nothing over nothing is nothing."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(error == 0, 0.0, error / by)
