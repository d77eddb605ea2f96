"""The penalty that pushes parallel heads apart, as a regularizer of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Window = slice | tuple[slice, ...] | None
"""The part of a weight that is compared: all of it, a slice of the first axis, or one slice per axis."""


class HeadPenalty(keras.regularizers.Regularizer):  # type: ignore[misc]
    """factor · Σ (V Vᵀ − I)², the rows of V being the flattened windows of the same weight in each head.

    A regularizer rather than a loss of `call`: it depends on weights alone, so it is counted once however often the
    layer is called, follows the weights, and leaves nothing in the graph of a call. Each head's weight carries one, and
    of these the first that still trains reports for all; so freezing a head does not lose the penalty of the others.
    """

    def __init__(self, weights: Sequence[Any], window: Window, factor: float, position: int) -> None:
        self.weights = weights
        self.window = window
        self.factor = factor
        self.position = position
        self.before = weights[position].regularizer

    def __call__(self, weight: Any) -> Any:
        own = ops.zeros(()) if self.before is None else self.before(weight)
        first = next(number for number, other in enumerate(self.weights) if other.trainable)
        return own + self.value() if first == self.position else own

    def value(self) -> Any:
        rows = [ops.reshape(ops.cast(select(weight, self.window), "float32"), (-1,)) for weight in self.weights]
        matrix = ops.stack(rows)
        overlap = ops.matmul(matrix, ops.transpose(matrix)) - ops.eye(len(rows))
        return self.factor * ops.sum(ops.square(overlap))


def attach(heads: Sequence[Sequence[Any]], index: int, window: Window, factor: float) -> None:
    """Put the penalty on weight `index` of every head; heads: the weights of each.

    Raises ValueError when a head has no such weight, or the windows are not of one size and thus cannot be compared.
    """
    for number, weights in enumerate(heads):
        if not -len(weights) <= index < len(weights):
            raise ValueError(f"MultiHead: reg_index {index} is out of range, head {number} has {len(weights)} weights.")
    chosen = [weights[index] for weights in heads]
    shapes = [tuple(select(weight, window).shape) for weight in chosen]
    for number, shape in enumerate(shapes):
        if shape != shapes[0]:
            raise ValueError(
                f"MultiHead: reg_index {index} selects shape {shape} in head {number}, {shapes[0]} in head 0; "
                "the penalty compares parts of one shape."
            )
    if 0 in shapes[0]:
        raise ValueError(f"MultiHead: reg_slice {window} selects nothing of weight {index}, shape {chosen[0].shape}.")
    # a layer listed twice shares its weights, which then report once
    distinct = {id(weight): position for position, weight in reversed(list(enumerate(chosen)))}
    for position in distinct.values():
        chosen[position].regularizer = HeadPenalty(chosen, window, factor, position)


def select(weight: Any, window: Window) -> Any:
    """The part of a weight that the window names."""
    if window is None:
        return ops.convert_to_tensor(weight)
    if isinstance(window, tuple) and len(window) > len(weight.shape):
        raise ValueError(f"MultiHead: reg_slice has {len(window)} slices, the weight has shape {tuple(weight.shape)}.")
    return ops.convert_to_tensor(weight)[window]


def per_index(name: str, value: Any, count: int) -> list[Any]:
    """A list with one entry for each of `count` reg_index; one value (or a list of one) serves all."""
    entries = list(value) if isinstance(value, list) else [value]
    if len(entries) == 1:
        entries = entries * count
    if len(entries) != count:
        raise ValueError(f"MultiHead: {name} has {len(entries)} entries, reg_index has {count}; give one, or as many.")
    return entries


def encode_window(window: Window) -> list[Any] | None:
    """As JSON: null, [start, stop, step], or a list of such for several axes."""
    if window is None:
        return None
    if isinstance(window, tuple):
        return [encode_window(part) for part in window]
    return [window.start, window.stop, window.step]


def decode_window(encoded: Any) -> Window:
    """The inverse of `encode_window`; what is a window already stays so."""
    if not isinstance(encoded, list):
        return encoded  # type: ignore[no-any-return]
    if any(isinstance(part, list) for part in encoded):
        return tuple(slice(*part) for part in encoded)
    return slice(*encoded)
