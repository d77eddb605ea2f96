"""Where TensorFlow is: trains a masked classifier of digits, exports it, and keeps digits it has not seen."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import mh_edge
from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras

    from mh_edge.layers import MultiHeadAttention, SeqWeightedAttention

LONGEST, WIDTH = 8, 9


def build() -> keras.Model:
    """rows: (batch, time, 9), valid: (batch, time), False where a row is padding -> (batch, 10)."""
    rows = keras.Input((None, WIDTH), name="rows")
    valid = keras.Input((None,), dtype="bool", name="valid")
    x = keras.layers.Dense(64, activation="relu")(rows)
    x = keras.layers.Add()([x, MultiHeadAttention(head_num=4, activation="tanh")(x, mask=valid)])
    x = SeqWeightedAttention()(keras.layers.Dense(64, activation="relu")(x), mask=valid)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(x)
    return keras.Model([rows, valid], digit, name="digits")


def sequences(images: np.ndarray, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """images: (n, 8, 8) -> the first 4 to 8 rows of each, every row with its height; the rest is padding."""
    heights = np.broadcast_to(np.arange(1, LONGEST + 1)[:, None] / LONGEST, (len(images), LONGEST, 1))
    valid = np.arange(LONGEST) < rng.integers(4, LONGEST + 1, len(images))[:, None]
    rows = np.concatenate([images / 16, heights], axis=2) * valid[:, :, None]
    return {"rows": rows.astype("float32"), "valid": valid}


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    rng, digits = np.random.default_rng(0), load_digits()
    train, test, train_y, test_y = train_test_split(digits.images, digits.target, test_size=360, random_state=0)
    test_x, model = sequences(test, rng), build()
    model.compile(keras.optimizers.Adam(0.005), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(sequences(train, rng), train_y, batch_size=64, epochs=15, verbose=0)
    print(f"right of {len(test)} test digits: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")

    real = {name: array[:8] for name, array in test_x.items()}
    (made,) = mh_edge.export(model, folder, formats=("onnx",), feeds=real).artifacts
    print(f"{made.path}: {made.bytes} bytes, equal on {made.verified['feeds']} feeds")
    np.savez(folder / "digits.npz", **test_x, labels=test_y)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
