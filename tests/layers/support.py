"""What the tests of the layers share: masks, random weights, gradients, round trips."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

MASK_KINDS = ("none", "right", "left", "holes", "row")

# float64 layers against float64 NumPy: rounding only, but beside -20000 a double still counts in steps of 3.6e-12
EXACT = {"rtol": 1e-9, "atol": 1e-10}
# float32 layers: a few roundings of numbers around 1
SINGLE = {"rtol": 1e-5, "atol": 1e-5}
# rows whose every key is masked live beside -10000 or -20000, where float32 counts in steps of .001 and .002
SINGLE_MASKED = {"rtol": 2e-3, "atol": 2e-3}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mask_of(kind: str, batch: int, time: int) -> np.ndarray | None:
    """Padding on the right or left, holes, or ("row") one row that is masked all over."""
    if kind == "none":
        return None
    steps = np.arange(time)[None, :]
    keep = np.arange(batch)[:, None] % time + 1
    if kind == "right":
        return steps < keep
    if kind == "left":
        return steps >= time - keep
    mask = rng(5).random((batch, time)) < 0.6
    mask[:, 0] = True
    if kind == "row":
        mask[-1] = False
    return mask


def randomize(layer: keras.layers.Layer, seed: int = 1, scale: float = 0.7) -> None:
    """Random numbers in every weight, the biases too: a zero hides what is done with it."""
    source = rng(seed)
    for weight in layer.weights:
        weight.assign(scale * source.standard_normal(weight.shape))


def named(layer: keras.layers.Layer) -> dict[str, np.ndarray]:
    """The layer's own weights by name."""
    return {weight.name: keras.ops.convert_to_numpy(weight) for weight in layer.weights}


def as_numpy(tensor: object) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def gradients(layer: keras.layers.Layer, inputs: object, **arguments: object) -> list[np.ndarray]:
    """d Σ(output·c) / d weight for each trainable weight, c random so that nothing cancels."""
    with tf.GradientTape() as tape:
        output = layer(inputs, **arguments)
        total = tf.reduce_sum(tf.cast(output, "float32") * rng(9).standard_normal(output.shape))
    found = tape.gradient(total, [weight.value for weight in layer.trainable_weights])
    assert all(gradient is not None for gradient in found)
    return [as_numpy(tf.convert_to_tensor(gradient)) for gradient in found]


def total(layer: keras.layers.Layer) -> float:
    """The sum of the layer's or model's own losses."""
    return float(sum(float(loss) for loss in layer.losses))


def loss_before_and_after(model: keras.Model, inputs: object, targets: np.ndarray, epochs: int) -> tuple[float, float]:
    model.compile(optimizer=keras.optimizers.Adam(0.02), loss="mse")
    before = model.evaluate(inputs, targets, verbose=0)
    model.fit(inputs, targets, epochs=epochs, verbose=0, shuffle=False)
    return before, model.evaluate(inputs, targets, verbose=0)


def reloaded(model: keras.Model, folder: Path) -> keras.Model:
    path = folder / "model.keras"
    model.save(path)
    return keras.models.load_model(path)


def assert_same_predictions(one: keras.Model, other: keras.Model, inputs: object) -> None:
    for expected, got in zip(flat(one(inputs)), flat(other(inputs)), strict=True):
        np.testing.assert_array_equal(got, expected)


def flat(outputs: object) -> Sequence[np.ndarray]:
    return [as_numpy(output) for output in (outputs if isinstance(outputs, (list, tuple)) else [outputs])]
