"""Two classifiers of handwritten digits: trained, exported and quantized with `mh-edge`, and measured on digits they
have not seen.

A digit is a sequence of its rows, of a different length each time: blank rows are cut off, and so is a part of the
image. Short sequences are filled up with zeros, which Masking hides.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from onnxruntime import InferenceSession
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mh_edge.quiet import quiet

with quiet():  # TensorFlow prints a page when it is loaded
    import keras

    from mh_edge.layers import MultiHead, MultiHeadAttention, SeqWeightedAttention

LONGEST, PIXELS = 8, 8
MOST_CUT = 2  # rows that may be missing at the bottom
BATCH = 64
FEEDS = 16  # real sequences that the proof uses besides its own
CALIBRATION = 512  # of the digits to train on; what is lost is measured on those to test
SCHEMES = ("int8", "int8-dynamic")


def rows_of(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """image: (8, 8), ink in [0, 1] -> (8, 9): the rows that are left, each with its height, then zeros."""
    inked = np.flatnonzero(image.any(axis=1))
    first, end = inked[0], inked[-1] + 1 - rng.integers(MOST_CUT + 1)
    heights = np.arange(1, LONGEST + 1, dtype="float32")[:, None] / LONGEST
    sequence = np.zeros((LONGEST, PIXELS + 1), "float32")
    sequence[: end - first] = np.hstack([image, heights])[first:end]
    return sequence


def sequences(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.stack([rows_of(image, rng) for image in images])


def attention() -> keras.Model:
    rows = keras.Input((None, PIXELS + 1), name="rows")
    x = keras.layers.Dense(96, activation="relu")(keras.layers.Masking()(rows))
    x = keras.layers.Add()([x, MultiHeadAttention(head_num=8, activation="tanh")(x)])
    x = keras.layers.Dense(96, activation="relu")(x)
    x = MultiHead(SeqWeightedAttention(), layer_num=4)(x)
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.layers.Flatten()(x))
    return keras.Model(rows, digit, name="attention")


def lstm_heads() -> keras.Model:
    rows = keras.Input((None, PIXELS + 1), name="rows")
    x = MultiHead(keras.layers.LSTM(24), layer_num=5)(keras.layers.Masking()(rows))
    digit = keras.layers.Dense(10, activation="softmax", name="digit")(keras.layers.Flatten()(x))
    return keras.Model(rows, digit, name="lstm_heads")


def train(model: keras.Model, images: np.ndarray, labels: np.ndarray, epochs: int, rng: np.random.Generator) -> None:
    """Each epoch cuts the images anew, so that no length belongs to a digit."""
    rate = keras.optimizers.schedules.CosineDecay(6e-3, epochs * -(-len(images) // BATCH))
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    for epoch in range(1, epochs + 1):
        loss = model.fit(sequences(images, rng), labels, batch_size=BATCH, verbose=0).history["loss"][0]
        if epoch % 5 == 0 or epoch == epochs:
            print(f"  epoch {epoch:2d} of {epochs}: loss {loss:.3f}", flush=True)


def shell(*arguments: str | Path) -> None:
    """Run a command as it would be typed; stop when it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ {shlex.join(words)}", flush=True)
    beside_python = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run(words, check=True, env=os.environ | {"PATH": beside_python})


def onnx_answers(path: Path, x: np.ndarray) -> np.ndarray:
    return InferenceSession(path).run(None, {"rows": x})[0]


def tflite_answers(path: Path, x: np.ndarray) -> np.ndarray:
    run = Interpreter(model_path=str(path)).get_signature_runner()
    return np.concatenate([run(rows=one[None])["digit"] for one in x])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("demo"))
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    out: Path = options.output
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    started = time.monotonic()

    digits, rng = load_digits(), np.random.default_rng(0)
    train_images, test_images, train_labels, test_labels = train_test_split(
        (digits.images / 16).astype("float32"), digits.target, test_size=360, random_state=0
    )
    test_x = sequences(test_images, rng)
    lengths = test_x.any(axis=2).sum(axis=1)
    print(f"{len(train_images)} digits to train on, {len(test_x)} to test; {lengths.min()} to {lengths.max()} rows")
    feeds = out / "feeds.npz"
    np.savez(feeds, rows=test_x[:FEEDS])
    calibration, evaluation = out / "calibration.npz", out / "evaluation.npz"
    np.savez(calibration, rows=sequences(train_images[:CALIBRATION], rng))
    np.savez(evaluation, rows=test_x, labels=test_labels)

    table = []
    for model in (attention(), lstm_heads()):
        print(f"\n{model.name}: {model.count_params()} weights", flush=True)
        train(model, train_images, train_labels, options.epochs, rng)
        saved = out / f"{model.name}.keras"
        model.save(saved, include_optimizer=False)
        shell("mh-edge", "export", saved, "-o", out, "--to", "onnx", "--to", "tflite", "--feeds", feeds)
        with quiet():
            answers = {
                saved: model.predict(test_x, verbose=0),
                saved.with_suffix(".onnx"): onnx_answers(saved.with_suffix(".onnx"), test_x),
                saved.with_suffix(".tflite"): tflite_answers(saved.with_suffix(".tflite"), test_x),
            }
        for suffix in (".onnx", ".tflite"):
            for scheme in SCHEMES:
                data = ("--calibration", calibration, "--evaluation", evaluation)
                shell("mh-edge", "quantize", saved.with_suffix(suffix), "--scheme", scheme, *data)
                small = saved.with_suffix(f".{scheme}{suffix}")
                answers[small] = (onnx_answers if suffix == ".onnx" else tflite_answers)(small, test_x)
        for path, given in answers.items():
            right = np.mean(given.argmax(axis=1) == test_labels)
            table.append((path, path.stat().st_size / 1000, right))

    print(f"\n{'file':36} {'kB':>7} {'right of the test digits':>25}")
    for path, size, right in table:
        print(f"{path!s:36} {size:7.1f} {right:25.1%}")
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
