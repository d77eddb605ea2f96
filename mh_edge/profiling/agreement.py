"""Whether a device's numbers are right: its outputs beside those of the CPU on the same feeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

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

NUMBERS = "biufc"
"""Kinds of dtypes that are compared."""


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
    same places, and names, dtypes and shapes must be the same.

    Where nothing differs and each output is one and the same number everywhere, or none, nothing is proven: then
    `equal` is None.

    precision: a key of ALLOWED. allowed: instead of what ALLOWED says.
    """
    limit = ALLOWED[precision] if allowed is None else allowed
    worst = Agreement(True, reference, 0.0, limit, feeds=len(expected))
    for why in (_unlike(*pair) for pair in zip(expected, got, strict=True)):
        if why:
            return replace(worst, equal=False, error=None, why=why)
    idle = []
    for name, first in expected[0].items():
        if first.dtype.kind not in NUMBERS:
            idle.append(f"{name!r} holds no numbers, but {_kind(first)}")
            continue
        theirs, ours = ([_numbers(one[name], scales.get(name)) for one in side] for side in (expected, got))
        found = _output(name, theirs, ours, worst)
        if found.error is not None and found.error >= (worst.error or 0.0):
            worst = found
        idle += _idle(name, theirs)
    if worst.equal and len(idle) == len(expected[0]):
        return replace(worst, equal=None, why=f"{', '.join(idle)} on {reference!r}, which proves nothing")
    return worst


def _unlike(expected: Arrays, got: Arrays) -> str:
    """In what two sets of outputs differ but in their numbers; "" for nothing."""
    for name, array in expected.items():
        if name not in got:
            return f"the output {name!r} is missing"
        if got[name].dtype != array.dtype:
            return f"the output {name!r} is {_kind(got[name])}, expected {_kind(array)}"
        if got[name].shape != array.shape:
            return f"the output {name!r} has the shape {got[name].shape}, expected {array.shape}"
    return next((f"there is an output {name!r}, which is not expected" for name in got if name not in expected), "")


def _kind(array: np.ndarray) -> str:
    return "text" if array.dtype.kind in "US" else str(array.dtype)


def _idle(name: str, arrays: Sequence[np.ndarray]) -> list[str]:
    """Why it could not be told if a device had computed nothing; empty where it could."""
    finite = [array[np.isfinite(array)] for array in arrays]
    count = sum(one.size for one in finite)
    if not sum(array.size for array in arrays):
        return [f"{name!r} is empty"]
    if not count:
        return [f"no number of {name!r} is finite"]
    low, high = (float(end([end(one) for one in finite if one.size])) for end in (np.min, np.max))
    return [f"every number of {name!r} is {low:g}"] if low == high and (count > 1 or low == 0.0) else []


def _output(name: str, expected: Sequence[np.ndarray], got: Sequence[np.ndarray], worst: Agreement) -> Agreement:
    """The worst of one output. worst: with nothing found yet."""
    counted = expected[0].dtype.kind in "iub"
    scale = 1.0 if counted else max(_largest(one) for one in expected)
    worst = replace(worst, equal=True, error=0.0, at="", expected=None, got=None)
    for a, b in zip(expected, got, strict=True):
        if not a.size:
            continue
        off = (a != b).astype(np.float64) if counted else difference(a, b)
        index = np.unravel_index(int(np.argmax(off)), off.shape)
        error = float(off.mean()) if counted else _share(float(off[index]), scale)
        if error >= (worst.error or 0.0):
            worst = replace(
                worst,
                equal=error <= (worst.allowed or 0.0),
                error=error,
                at=f"{name}[{', '.join(map(str, index))}]" if a.ndim else name,
                expected=float(a[index]),
                got=float(b[index]),
            )
    return worst


def _numbers(array: np.ndarray, scale: Scale | None) -> np.ndarray:
    """What the array stands for: float64 for floats and scaled integers, itself for whole numbers; complex numbers as
    their two parts, along a last axis.
    """
    if scale is not None:
        return scale.numbers(array).astype(np.float64)
    if array.dtype.kind == "c":
        return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _largest(array: np.ndarray) -> float:
    finite = np.abs(array[np.isfinite(array)])
    return float(finite.max()) if finite.size else 0.0


def _share(error: float, scale: float) -> float:
    """error / scale; an error beside nothing but zeros is beyond all."""
    if error == 0.0:
        return 0.0
    return error / scale if scale else float("inf")


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """|a - b|, infinite where only one is NaN or infinite, or both are infinite with another sign."""
    with np.errstate(invalid="ignore"):
        off = np.abs(a - b)
    same = (np.isnan(a) & np.isnan(b)) | (a == b)
    return np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))
