"""A masked classifier of digits, from training to a kit for a Raspberry Pi that proves itself there."""

from __future__ import annotations

import subprocess
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

CALIBRATION = 256  # of the digits to train on


def build() -> keras.Model:
    """(batch, 8 rows, 8 and the row's height), rows of zeros are masked -> (batch, 10)."""
    rows = keras.Input((8, 9), name="rows")
    seen = MultiHeadAttention(head_num=3, activation="tanh")(keras.layers.Masking()(rows))
    seen = SeqWeightedAttention()(keras.layers.Dense(32, activation="relu")(seen))
    return keras.Model(rows, keras.layers.Dense(10, activation="softmax", name="digit")(seen), name="digits")


def main(folder: Path) -> None:
    keras.utils.set_random_seed(0)
    digits = load_digits()
    heights = np.broadcast_to(np.linspace(0, 1, 8)[:, None], (len(digits.images), 8, 1))
    images = np.concatenate([digits.images / 16, heights], axis=2).astype("float32")
    images[np.arange(8) >= np.random.default_rng(0).integers(6, 9, len(images))[:, None]] = 0  # rows that are missing
    train_x, test_x, train_y, test_y = train_test_split(images, digits.target, test_size=360, random_state=0)
    model = build()
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(train_x, train_y, batch_size=64, epochs=12, verbose=0)
    print(f"right of {len(test_x)} test digits: {model.evaluate(test_x, test_y, verbose=0)[1]:.1%}")

    # One digit at a time, as a device sees them; fixed sizes are the fastest form of a .tflite.
    exported = mh_edge.export(model, folder, formats=("onnx", "tflite"), batch=1)
    floats = {made.format: made.path for made in exported.artifacts}
    small = mh_edge.quantize(
        floats["tflite"],
        scheme="int8",
        calibration={"rows": train_x[:CALIBRATION]},
        evaluation={"rows": test_x, "labels": test_y},
        max_drop="2%",
        timed=False,
    )
    files = [floats["onnx"], floats["tflite"], small.artifact.path]

    kit = mh_edge.bundle(files, "linux-arm64", folder / "kit")
    print(f"{kit.path}: {kit.files} files, {kit.bytes} bytes. Its self-test, on this machine:\n")
    subprocess.run([sys.executable, kit.path / "selftest.py"], check=True)
    print(
        "\nOn a Raspberry Pi with a system of 64 bits:\n\n"
        f"    scp -r {kit.path} pi@raspberrypi.local:kit\n"
        "    ssh pi@raspberrypi.local\n"
        "    python3 -m venv kit-venv\n"
        "    kit-venv/bin/pip install numpy onnxruntime ai-edge-litert\n"
        "    kit-venv/bin/python kit/selftest.py"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))
