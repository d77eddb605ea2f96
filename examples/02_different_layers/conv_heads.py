"""Different layers side by side: convolutions over 3, 5 and 7 rows of a digit at once."""

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


def build() -> keras.Model:
    """(batch, 8, 8) -> three convolutions side by side: (batch, 8, 16, 3) -> (batch, 10)."""
    rows = keras.Input((8, 8), name="rows")
    widths = [keras.layers.Conv1D(16, width, padding="same", activation="relu") for width in (3, 5, 7)]
    heads = MultiHead(widths, name="heads")(rows)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.layers.Flatten()(heads))
    return keras.Model(rows, digit, name="conv_heads")


def main(folder: str) -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    train_x, test_x, train_y, test_y = train_test_split(
        (digits.images / 16).astype("float32"), digits.target, test_size=360, random_state=0
    )
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=5, verbose=0)
    print(f"heads: {tuple(model.get_layer('heads').output.shape)}")
    print(f"right of {len(test_x)} test digits: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")

    real: dict[str, np.ndarray] = {"rows": test_x[:8]}
    for made in mh_edge.export(model, folder, formats=("onnx", "tflite"), feeds=real).artifacts:
        error = made.verified["required_tolerance"]["abs"]
        print(f"{made.path}: {made.bytes} bytes, equal on {made.verified['feeds']} feeds, greatest error {error:.1e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "out")
