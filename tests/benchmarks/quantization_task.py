"""What is quantized: trained classifiers; the sets to train, stop, calibrate and test on share no sample.

transformer: which of 8 kinds of noisy rows is the most frequent one of a sequence? 20 rows of 16 numbers, 8 to 20 of
them valid; the padding is full of rows of one wrong kind, so that a mask that leaks costs accuracy. Two blocks of
attention (d=64, 4 heads). The digits models are those of examples/00_digits.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import keras

TIME, WIDTH, CLASSES = 20, 16, 8
NOISE = 1.0
"""Of a row; with it the float model is right on 90 to 97 % of the sequences."""

SETS = {"train": (8000, 1), "stopping": (1000, 2), "calibration": (500, 3), "test": (4000, 4)}
"""Samples, and the seed they are drawn with."""

EPOCHS, PATIENCE = 12, 2

Set = Mapping[str, np.ndarray]
"""Inputs by name, and `labels`."""


def sequences(samples: int, seed: int) -> Set:
    """x: (samples, 20, 16), valid: (samples, 20), labels: the kind that leads by at least two valid rows."""
    rng = np.random.default_rng(seed)
    kind = np.random.default_rng(7).normal(size=(CLASSES, WIDTH))  # the same in every set
    labels, rows = rng.integers(CLASSES, size=samples), rng.integers(CLASSES, size=(samples, TIME))
    lengths = rng.integers(8, TIME + 1, size=samples)
    for label, row, length in zip(labels, rows, lengths, strict=True):
        while True:
            counts = np.bincount(row[:length], minlength=CLASSES)
            if counts[label] > np.delete(counts, label).max() + 1:
                break
            row[rng.integers(length)] = label
        row[length:] = (label + rng.integers(1, CLASSES)) % CLASSES
    x = kind[rows] + NOISE * rng.normal(size=(samples, TIME, WIDTH))
    return {"x": x.astype("float32"), "valid": np.arange(TIME) < lengths[:, None], "labels": labels}


def transformer() -> keras.Model:
    import keras

    from mh_edge.layers import MultiHeadAttention

    x, valid = keras.Input((TIME, WIDTH), name="x"), keras.Input((TIME,), dtype="bool", name="valid")
    h = keras.layers.Dense(64)(x)
    for _ in range(2):
        h = keras.layers.LayerNormalization()(h + MultiHeadAttention(head_num=4, activation=None)(h, mask=valid))
        inner = keras.layers.Dense(256, activation="relu")(h)
        h = keras.layers.LayerNormalization()(h + keras.layers.Dense(64)(inner))
    weight = keras.ops.cast(valid, "float32")[..., None]
    mean = keras.ops.sum(h * weight, 1) / keras.ops.sum(weight, 1)
    return keras.Model([x, valid], keras.layers.Dense(CLASSES, name="logits")(mean), name="transformer")


def train_transformer(seed: int) -> tuple[keras.Model, Mapping[str, Set]]:
    """Stopped where the accuracy on a set of its own no longer rises."""
    import keras

    sets = {name: sequences(*drawn) for name, drawn in SETS.items()}
    keras.utils.set_random_seed(seed)
    model = transformer()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping("val_accuracy", patience=PATIENCE, restore_best_weights=True)
    (x, y), held_out = _pair(sets["train"]), _pair(sets["stopping"])
    model.fit(x, y, batch_size=64, epochs=EPOCHS, validation_data=held_out, callbacks=[stop], verbose=0)
    return model, sets


def _pair(samples: Set) -> tuple[list[np.ndarray], np.ndarray]:
    *inputs, labels = samples.values()
    return inputs, labels


DIGIT_EPOCHS = 30
DIGIT_CUTS = 5
"""How often each image of a set that is not trained on is cut, so that one sequence is less than .1 points."""

DIGITS = {"calibration": 100, "test": 360}
"""Images held back; all others are trained on, for a fixed number of epochs."""


def _example() -> ModuleType:
    path = Path(__file__).parents[2] / "examples" / "00_digits" / "digits.py"
    found = importlib.util.spec_from_file_location("digits", path)
    if found is None or found.loader is None:
        raise FileNotFoundError(path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def train_digits(name: str, seed: int) -> tuple[keras.Model, Mapping[str, Set]]:
    import keras
    from sklearn.datasets import load_digits

    example, digits = _example(), load_digits()
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(digits.images))
    images, labels = (digits.images[order] / 16).astype("float32"), digits.target[order]
    sets, start = {}, 0
    for held_out, count in DIGITS.items():
        part = np.repeat(np.arange(start, start + count), DIGIT_CUTS)
        sets[held_out] = {"rows": example.sequences(images[part], rng), "labels": labels[part]}
        start += count
    model = getattr(example, name)()
    example.train(model, images[start:], labels[start:], DIGIT_EPOCHS, np.random.default_rng(seed))
    return model, sets


@dataclass(frozen=True)
class Task:
    """A model and the seeds it is trained with. train(seed) -> the model and its sets, `calibration` and `test` among
    them.
    """

    name: str
    seeds: tuple[int, ...]
    train: Callable[[int], tuple[keras.Model, Mapping[str, Set]]]


TASKS = (
    Task("transformer", (0, 1, 2), train_transformer),
    Task("digits attention", (0,), lambda seed: train_digits("attention", seed)),
    Task("digits lstm_heads", (0,), lambda seed: train_digits("lstm_heads", seed)),
)
