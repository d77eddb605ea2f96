"""Whether a device's numbers are right: its outputs beside those of the CPU on the same feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mh_edge.profiling.result import Agreement
from mh_edge.runtimes.base import Scale

Arrays = Mapping[str, np.ndarray]

ALLOWED = {"float32": 1e-3, "float16": 3e-2, "integers": 1e-1}
"""The largest difference that is right, as a share of the largest number of that output, by the coarsest numbers that
the file or the device computes in. float32: other orders of sums give 1e-6 to 1e-4. float16: an ulp is 1e-3, and
layers add up. integers: rounding the other way moves a number by a step of 1/127, and layers add up. A device that
leaves an operation out is wrong by 1e-1 to 1.
"""


def compare(
    expected: Sequence[Arrays],
    got: Sequence[Arrays],
    scales: Mapping[str, Scale],
    precision: str,
    reference: str,
    allowed: float | None = None,
) -> Agreement:
    """The worst difference over all feeds and outputs: max |got - expected| / max |expected|, of each output over all
    feeds; of whole numbers that stand for nothing else, the share that is not the same. NaN and infinity must be in the
    same places.

    precision: a key of ALLOWED. allowed: instead of what ALLOWED says.
    """
    limit = ALLOWED[precision] if allowed is None else allowed
    worst = Agreement(True, reference, 0.0, limit, feeds=len(expected))
    for name in expected[0]:
        if name not in got[0]:
            why = f"the output {name!r} is missing"
            return Agreement(False, reference, None, limit, name, feeds=len(expected), why=why)
        ours = [_numbers(one[name], scales.get(name)) for one in got]
        theirs = [_numbers(one[name], scales.get(name)) for one in expected]
        found = _output(name, theirs, ours, reference, limit)
        if found.error is None or (worst.error is not None and found.error >= worst.error):
            worst = found
        if worst.error is None:
            return worst
    return worst


def _output(
    name: str, expected: Sequence[np.ndarray], got: Sequence[np.ndarray], reference: str, limit: float
) -> Agreement:
    shapes = [(a.shape, b.shape) for a, b in zip(expected, got, strict=True) if a.shape != b.shape]
    if shapes:
        why = f"the output {name!r} has the shape {shapes[0][1]}, expected {shapes[0][0]}"
        return Agreement(False, reference, None, limit, name, feeds=len(expected), why=why)
    counted = expected[0].dtype.kind in "iub"
    scale = 1.0 if counted else max(_largest(one) for one in expected)
    worst = Agreement(True, reference, 0.0, limit, feeds=len(expected))
    for a, b in zip(expected, got, strict=True):
        if not a.size:
            continue
        off = (a != b).astype(np.float64) if counted else _difference(a, b)
        index = np.unravel_index(int(np.argmax(off)), off.shape)
        error = float(off.mean()) if counted else _share(float(off[index]), scale)
        if error >= (worst.error or 0.0):
            at = f"{name}[{', '.join(map(str, index))}]" if a.ndim else name
            worst = Agreement(
                error <= limit, reference, error, limit, at, float(a[index]), float(b[index]), len(expected)
            )
    return worst


def _numbers(array: np.ndarray, scale: Scale | None) -> np.ndarray:
    """What the array stands for: float64 for floats and scaled integers, itself for whole numbers."""
    if scale is not None:
        return scale.numbers(array).astype(np.float64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _largest(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _share(error: float, scale: float) -> float:
    """error / scale; an error beside nothing but zeros is beyond all."""
    if error == 0.0:
        return 0.0
    return error / scale if scale else float("inf")


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, infinite where only one is NaN or infinite, or both are infinite with another sign."""
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    return np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))
