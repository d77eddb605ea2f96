"""The first yardstick: a float64 clone of the model, when there is one that deserves belief."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import keras
import numpy as np

from mh_edge.errors import InputError
from mh_edge.policy import with_policy
from mh_edge.program import Program
from mh_edge.verification.evaluate import Evaluator
from mh_edge.verification.reference import Refused

# A clone of at most this many bytes of float32 weights is always made; a larger one when it fits in a quarter of the
# free memory, because the artifacts that are compared with it need their share.
ALWAYS_CLONED = 200 * 2**20
SHARE_OF_FREE_MEMORY = 0.25

# A step of 1e-6 is eight float32 units in the last place: a hidden rounding to float32 bends it by about 3 %, honest
# float64 by about 1e-6 times the curvature. Between the two there is room for very curved models.
STEP = 1e-6
GREATEST_BEND = 1e-3


def float64_truth(program: Program, feeds: Mapping[str, np.ndarray]) -> Evaluator | str:
    """The float64 evaluator, or the sentence why there is none.

    feeds: an ordinary feed on which the clone has to show that it really computes in float64.
    """
    size = sum(int(np.prod(variable.shape)) * 4 for variable in program.variables)
    if size > ALWAYS_CLONED and 2 * size > SHARE_OF_FREE_MEMORY * _free_memory():
        return f"its weights ({size / 2**20:.0f} MB) are too large to be held in float64 as well"
    try:
        clone = with_policy(program.model, "float64")
    except InputError as error:
        return error.message
    evaluator = Evaluator(replace(program, model=clone), "float64")
    try:
        return _doubt(evaluator, feeds) or evaluator
    except (Refused, NameError) as reason:  # a Lambda that is rebuilt does not find the names around it
        return f"its float64 clone does not run: {reason}"


def _free_memory() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _doubt(evaluator: Evaluator, feeds: Mapping[str, np.ndarray]) -> str | None:
    """Why the clone is not believed: f(x), f(x + d), f(x + 2d) of a float64 function lie on a line, of a rounded one on
    a staircase.
    """
    wide = {
        name: array.astype("float64") if np.issubdtype(array.dtype, np.floating) else array
        for name, array in feeds.items()
    }
    weights = [variable for variable in evaluator.program.variables if keras.backend.is_float_dtype(variable.dtype)]
    kept = [variable.value.numpy() for variable in weights]
    runs = []
    for step in range(3):
        rng = np.random.default_rng(0)
        for variable, value in zip(weights, kept, strict=True):
            variable.assign(_stepped(value, step, rng))
        runs.append(evaluator.run({name: _stepped(array, step, rng) for name, array in wide.items()}))
    for variable, value in zip(weights, kept, strict=True):
        variable.assign(value)
    for name in runs[0]:
        at, near, far = (run[name] for run in runs)
        if at.dtype.kind != "f":
            continue
        if at.dtype != np.float64:
            return f"its float64 clone still gives {at.dtype} in output {name!r}"
        if _bend(at, near, far) > GREATEST_BEND:
            return f"its float64 clone rounds to float32 somewhere before output {name!r}"
    return None


def _stepped(array: np.ndarray, step: int, rng: np.random.Generator) -> np.ndarray:
    """array * (1 + step * 1e-6 * u), u in [0.5, 1.5) the same for every step; integers and masks stay."""
    return array * (1 + step * STEP * (0.5 + rng.random(array.shape))) if array.dtype == np.float64 else array


def _bend(at: np.ndarray, near: np.ndarray, far: np.ndarray) -> float:
    """Median of |f0 - 2 f1 + f2| over median of |f1 - f0|, over the elements that move.

    Elements that are not finite somewhere say nothing about rounding and are left out; 0.0 when none is left.
    """
    finite = np.isfinite(at) & np.isfinite(near) & np.isfinite(far)
    at, near, far = at[finite], near[finite], far[finite]
    slope = np.abs(near - at)
    bend = np.abs(at - 2 * near + far)
    moving = slope > 0
    return float(np.median(bend[moving]) / np.median(slope[moving])) if moving.any() else 0.0
