"""Which outputs decide between classes, and which of them the labels belong to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mh_edge.errors import InputError
from mh_edge.quantization.scheme import Arrays
from mh_edge.signature import Signature, Tensor

NUMBERS = "iubf"
"""NumPy's kinds of dtype that labels may have."""

ROUNDING = 1e-3
"""By which probabilities may sum to more or less than 1: those of a softmax in 16-bit floats, 11 bits each."""


@dataclass(frozen=True)
class Reading:
    """How one output is read. kind: as in `decisions`, None where it decides nothing. labelled: whether the labels are
    its right answers. classes: how many it has, None for "values". known: whether it is known to decide between
    classes; else it does only if all of it turns out to be probabilities. one_hot: whether the labels are rows with a
    single 1, by their shape: a row of ids may look like one.
    """

    output: str
    kind: str | None
    labelled: bool = False
    classes: int | None = None
    known: bool = True
    one_hot: bool = False

    def right(self, labels: np.ndarray, first: int) -> np.ndarray:
        """The right decision at each position. first: index of the first sample. Raises InputError for a label that is
        no class.
        """
        if self.one_hot and _one_hot(labels, self.classes):
            return np.asarray(labels.argmax(-1)).reshape(-1)
        flat = labels.reshape(-1)
        wrong = flat != np.floor(flat) if labels.dtype.kind == "f" else np.zeros(flat.shape, bool)
        if self.classes is not None:
            wrong |= (flat < 0) | (flat >= self.classes)
        if wrong.any():
            at = int(wrong.argmax())
            raise InputError(
                f"the label {flat[at]} of sample {first + at * len(labels) // len(flat)} is no class: "
                f"{self.output!r} has {self.classes or 'whole numbers'}, counted from 0.",
                "Correct the labels; if they are numbers to be predicted, give --no-classes (classes=False), or "
                "measure with --metric package.module:function.",
            )
        return flat.astype(np.int64)


def read_classes(
    signature: Signature, outputs: Arrays, labels: np.ndarray | None, named: Arrays, classes: bool | None
) -> Sequence[Reading]:
    """How each output is read, from those of some samples and their labels; see `judge` for the rules. Raises
    InputError for labels that are no numbers, or that fit several outputs and are named after none.
    """
    for array in (*named.values(), *(() if labels is None else (labels,))):
        if array.dtype.kind not in NUMBERS:
            raise InputError(
                f"the labels are {array.dtype}, not numbers.", "Give the number of the right class, counted from 0."
            )
    readings = [
        _read(tensor, outputs[tensor.name], named.get(tensor.name, labels), classes) for tensor in signature.outputs
    ]
    claimed = [reading.output for reading in readings if reading.labelled and reading.output not in named]
    if len(claimed) > 1:
        raise InputError(
            f"the labels fit {' and '.join(map(repr, claimed))}.",
            f"Name them after the output that they belong to, such as 'labels.{claimed[-1]}'.",
        )
    return readings


def _read(tensor: Tensor, values: np.ndarray, labels: np.ndarray | None, classes: bool | None) -> Reading:
    nothing = Reading(tensor.name, None)
    if values.dtype.kind != "f":
        fits = labels is not None and _positions(labels) == _positions(values) and labels.dtype.kind in "iub"
        return nothing if classes is False else Reading(tensor.name, "values", fits)
    if classes is False or values.ndim == 0:
        return nothing
    if values.size == len(values):  # one number for each sample
        binary = labels is not None and labels.size == len(values) and bool(np.isin(labels, (0, 1)).all())
        return Reading(tensor.name, "binary", binary, 2) if binary or classes else nothing
    width = values.shape[-1]
    if values.ndim < 2 or width < 2:
        return nothing
    ids = labels is not None and _ids(labels, values)
    one_hot = labels is not None and not ids and labels.shape == values.shape and _one_hot(labels, width)
    if classes or ids or one_hot:
        return Reading(tensor.name, "argmax", ids or one_hot, width, one_hot=one_hot)
    # Labels of this shape that name no classes are numbers to be predicted.
    regression = labels is not None and labels.shape == values.shape
    fixed = isinstance(tensor.shape[-1], int)
    return Reading(tensor.name, "argmax", False, width, known=False) if fixed and not regression else nothing


def are_probabilities(values: np.ndarray) -> bool:
    """Whether all numbers lie in [0, 1] and each row of the last axis sums to 1, up to ROUNDING."""
    within = (values >= -ROUNDING) & (values <= 1 + ROUNDING)
    return bool(within.all() and (np.abs(values.sum(-1, dtype=np.float64) - 1) <= ROUNDING).all())


def _positions(array: np.ndarray) -> tuple[int, ...]:
    """The shape without a last axis of 1."""
    return array.shape[:-1] if array.ndim > 1 and array.shape[-1] == 1 else array.shape


def _ids(labels: np.ndarray, values: np.ndarray) -> bool:
    """Whether the labels are a whole number for each row of the last axis."""
    whole = labels.dtype.kind in "iub" or bool((labels == np.floor(labels)).all())
    return whole and values.shape[:-1] in (labels.shape, _positions(labels))


def _one_hot(labels: np.ndarray, classes: int | None) -> bool:
    """Whether the last axis holds a single 1 among zeros."""
    if labels.ndim < 2 or labels.shape[-1] < 2 or labels.shape[-1] != classes:
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(-1) == 1).all())
