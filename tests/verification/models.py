"""Small Keras models for the tests of verification, with weights and biases that are not zero."""

from __future__ import annotations

import keras
import numpy as np
from keras import layers

from mh_edge.layers import MultiHeadAttention


def filled(model: keras.Model, seed: int = 0) -> keras.Model:
    """The model with biases and scales moved away from their trivial initial values."""
    rng = np.random.default_rng(seed)
    for variable in model.trainable_weights:
        if len(variable.shape) == 1:
            variable.assign(variable + 0.3 * rng.standard_normal(variable.shape))
        else:
            variable.assign(0.4 * rng.standard_normal(variable.shape))
    return model


def dense(activation: str = "relu") -> keras.Model:
    """x: (batch, 6) -> y: (batch, 5)."""
    x = keras.Input((6,), name="x")
    return filled(keras.Model(x, layers.Dense(5, activation=activation, name="y")(x)))


class Positions(layers.Layer):
    """x + w * position: makes the steps of a masked row different, so that what a mask does to them shows."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, shape: tuple[int, ...]) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, inputs: object) -> object:
        position = keras.ops.cast(keras.ops.arange(keras.ops.shape(inputs)[1]), inputs.dtype)
        return inputs + keras.ops.sin(keras.ops.expand_dims(position, -1) * self.scale)


def masked_attention(history_only: bool = True) -> keras.Model:
    """x: (batch, sequence, 8), steps of zeros are masked by -10000 -> y: (batch, sequence, 8)."""
    x = keras.Input((None, 8), name="x")
    attention = MultiHeadAttention(2, activation=None, history_only=history_only, name="y")
    return filled(keras.Model(x, attention(Positions()(layers.Masking()(x)))))


def keras_attention() -> keras.Model:
    """Keras's own attention: x: (batch, sequence, 8) -> y: (batch, sequence, 8)."""
    x = keras.Input((None, 8), name="x")
    masked = Positions()(layers.Masking()(x))
    return filled(keras.Model(x, layers.MultiHeadAttention(2, 4, name="y")(masked, masked)))


class SwallowingSoftmax(layers.Layer):
    """softmax over time of x - 1e9 * masked: where every step is masked float32 loses x, and float64 does not."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: object, mask: object = None) -> object:
        masked = 1.0 - keras.ops.cast(mask, inputs.dtype)
        return keras.ops.softmax(keras.ops.swapaxes(inputs - 1e9 * keras.ops.expand_dims(masked, -1), 1, 2))


def swallowing_softmax() -> keras.Model:
    """x: (batch, sequence, 8) -> y: (batch, 4, sequence)."""
    x = keras.Input((None, 8), name="x")
    h = layers.Dense(4)(Positions()(layers.Masking()(x)))
    return filled(keras.Model(x, SwallowingSoftmax(name="y")(h)))


def convolution() -> keras.Model:
    """Convolutions, normalisation and saturating activations: x: (batch, sequence, 4) -> y: (batch, sequence, 3)."""
    x = keras.Input((None, 4), name="x")
    h = layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    h = layers.LayerNormalization()(layers.BatchNormalization()(h))
    return filled(keras.Model(x, layers.Dense(3, activation="softmax", name="y")(layers.Activation("tanh")(h))))


def recurrent() -> keras.Model:
    """Embedding with mask -> GRU: ids (batch, sequence) -> y: (batch, 3)."""
    ids = keras.Input((None,), dtype="int32", name="ids")
    h = layers.Embedding(11, 6, mask_zero=True)(ids)
    return filled(keras.Model(ids, layers.Dense(3, name="y")(layers.GRU(5)(h))))


def deep() -> keras.Model:
    """Fourteen layers of relu and normalisation, where rounding errors add up: x: (batch, 32) -> y: (batch, 10)."""
    x = keras.Input((32,), name="x")
    h = x
    for _ in range(14):
        h = layers.LayerNormalization()(layers.Dense(32, activation="relu")(h) + h)
    return filled(keras.Model(x, layers.Dense(10, name="y")(h)))
