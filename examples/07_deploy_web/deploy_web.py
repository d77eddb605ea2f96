"""A masked classifier of digits in a browser: export it for WebGPU, put it into a folder with a page that proves it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import mh_edge
from mh_edge.errors import UnavailableError
from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras

    from mh_edge.layers import MultiHeadAttention

TRAIN, TEST, REAL = slice(1400), slice(1400, None), slice(1400, 1408)


def build() -> keras.Model:
    """rows: (batch, 8, 8), ink: (batch, 8), which rows have any: the others are masked -> (batch, 10)."""
    rows, ink = keras.Input((8, 8), name="rows"), keras.Input((8,), dtype="bool", name="ink")
    seen = MultiHeadAttention(head_num=4, activation="tanh")(keras.layers.Dense(32)(rows), mask=ink)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.ops.reshape(seen, (-1, 8 * 32)))
    return keras.Model([rows, ink], digit, name="digits")


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    images = (digits.images / 16).astype("float32")
    given = {"rows": images, "ink": images.any(axis=2)}
    train, test, real = ({name: one[part] for name, one in given.items()} for part in (TRAIN, TEST, REAL))
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train, digits.target[TRAIN], batch_size=64, epochs=3, verbose=0)
    right = model.evaluate(test, digits.target[TEST], verbose=0)[1]
    print(f"right of {len(test['rows'])} test digits: {right:.1%}")

    (artifact,) = mh_edge.export(model, folder, formats=["onnx"], runtime="plugins", feeds=real).artifacts
    print(f"{artifact.path}: {artifact.bytes} bytes, equal on {artifact.verified['feeds']} feeds")
    np.savez(folder / "real.npz", **real)
    try:
        kit = mh_edge.bundle([artifact.path], "web", folder / "web", feeds=folder / "real.npz")
    except UnavailableError as error:  # the model is written and proven; what is missing is not ours to download
        print(f"no bundle yet: {error}")
        return
    print(f"{kit.path}: {kit.files} files, {kit.artifacts[0].cases} golden cases")
    print(f"python {kit.path / 'serve.py'}, and open the page that it names")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
