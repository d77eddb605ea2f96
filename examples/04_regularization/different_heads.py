"""Heads that are pushed apart: the same model with and without the penalty, and how alike its heads end up."""

from __future__ import annotations

import sys

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mh_edge
from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras

    from mh_edge.layers import MultiHead

UNITS, HEADS = 16, 3
RECURRENT = [1, 4]  # of a Bidirectional LSTM's six weights: the recurrent kernels, forward and backward
CANDIDATE = (slice(None), slice(2 * UNITS, 3 * UNITS))  # columns 32 to 48: the third gate of i, f, c, o


def build(factor: float) -> keras.Model:
    """(batch, rows, 8) -> three bidirectional LSTMs side by side: (batch, 32, 3) -> (batch, 10).

    The seed in the initializer makes the copies begin with equal recurrent kernels, which is the hardest start.
    """
    rows = keras.Input((None, 8), name="rows")
    same = keras.initializers.Orthogonal(seed=1)
    heads = MultiHead(
        keras.layers.Bidirectional(keras.layers.LSTM(UNITS, recurrent_initializer=same)),
        layer_num=HEADS,
        reg_index=RECURRENT,
        reg_slice=CANDIDATE,
        reg_factor=factor,
        name="heads",
    )(rows)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.layers.Flatten()(heads))
    return keras.Model(rows, digit, name="different_heads")


def alikeness(model: keras.Model) -> float:
    """The mean |cosine| between the penalised parts of two heads: 1 is the same direction, 0 is none in common."""
    heads = model.get_layer("heads").layers
    cosines = []
    for index in RECURRENT:
        rows = np.stack([head.get_weights()[index][CANDIDATE].ravel() for head in heads])
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines.append(np.abs((rows @ rows.T)[np.triu_indices(HEADS, k=1)]))
    return float(np.mean(cosines))


def main(folder: str) -> None:
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.images / 16).astype("float32"), digits.target, test_size=360, random_state=0
    )
    for factor in (0.0, 0.1):
        keras.utils.set_random_seed(0)
        model = build(factor)
        before = alikeness(model)
        model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.fit(train_x, train_y, batch_size=128, epochs=6, verbose=0)
        right = model.evaluate(test_x, test_y, verbose=0)[1]
        print(f"reg_factor {factor}: alikeness {before:.2f} -> {alikeness(model):.2f}, right {right:.1%}")

    real: dict[str, np.ndarray] = {"rows": test_x[:8]}
    for made in mh_edge.export(model, folder, formats=("onnx", "tflite"), feeds=real).artifacts:
        error = made.verified["required_tolerance"]["abs"]
        print(f"{made.path}: {made.bytes} bytes, equal on {made.verified['feeds']} feeds, greatest error {error:.1e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "out")
