"""Kernels that the converter never sees: the file is, byte for byte, the one made from the kernels themselves."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from mh_edge.layers import MultiHeadAttention
from mh_edge_tflite import bridge, standins
from to_tflite.conversion import convert, proven

layers = keras.layers


class Scale(keras.layers.Layer):
    def call(self, x):
        return x * np.float32([2.0, 3.0, 5.0, 7.0])


def images():
    return [keras.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same"), layers.Conv2D(5, 1), layers.DepthwiseConv2D(3)]


def dilated():
    return [keras.Input((8, 4)), layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), layers.BatchNormalization()]


def deep():
    return [keras.Input((4,)), layers.Dense(4, activation="gelu"), layers.Dense(4), layers.BatchNormalization()]


def attention():
    return [keras.Input((3, 4)), MultiHeadAttention(2), layers.Conv1D(4, 3)]


def loops():
    both = layers.Bidirectional(layers.GRU(4, return_sequences=True))
    return [keras.Input((40, 4)), both, layers.LSTM(4, return_sequences=True), layers.SimpleRNN(4)]


def words():
    return [keras.Input((3,), dtype="int32"), layers.Embedding(9, 4), layers.Dense(4)]


FOUND = {images: 2, dilated: 0, deep: 1, attention: 5, loops: 3, words: 2}
"""How many kernels of each model have a stand-in; not those whose product is scaled by a normalization, nor
those that were joined with others, as the two directions of a layer are."""


@pytest.fixture
def attempts(monkeypatch):
    """Stand-ins for the smallest kernels too; -> (stand-ins, kernels located in the file or None) of each attempt."""
    seen = []

    def located(content, found):
        kernels = standins.located(content, found)
        seen.append((len(found), None if kernels is None else len(kernels)))
        return kernels

    monkeypatch.setattr(standins, "SMALLEST", 1)
    monkeypatch.setattr(bridge, "located", located)
    return seen


def without(model, path, monkeypatch):
    """The file's bytes when every kernel goes through the converter."""
    monkeypatch.setattr(bridge, "stand_ins", lambda graph, weights: {})
    return convert(model, path)[1].read_bytes()


def trained(rows):
    """The model, its normalizations with numbers of their own."""
    model = keras.Sequential(rows)
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.uniform(0.5, 1.5, variable.shape))
    return model


@pytest.mark.parametrize("rows", FOUND, ids=lambda rows: rows.__name__)
def test_the_file_is_the_same_as_without(rows, attempts, tmp_path, monkeypatch):
    model = trained(rows())
    made = convert(model, tmp_path / "with.tflite")[1].read_bytes()
    assert attempts == [(FOUND[rows], FOUND[rows])]
    assert made == without(model, tmp_path / "without.tflite", monkeypatch)


def test_a_stand_in_that_the_converter_computed_with_is_given_up(attempts, tmp_path, monkeypatch):
    """A scale before a product is multiplied into the kernel as well."""
    model = trained([keras.Input((4,)), Scale(), layers.Dense(4), layers.ReLU(), layers.Dense(4)])
    assert proven(model, tmp_path / "with.tflite").passed
    assert attempts == [(2, None)]
    made = (tmp_path / "with.tflite").read_bytes()
    assert made == without(model, tmp_path / "without.tflite", monkeypatch)


def test_a_kernel_with_two_readers_has_none(attempts, tmp_path):
    x, y = keras.Input((4,), name="x"), keras.Input((4,), name="y")
    shared, own = layers.Dense(4), layers.Dense(3)
    assert proven(keras.Model([x, y], [shared(x), own(shared(y))]), tmp_path / "model.tflite").passed
    assert attempts == [(1, 1)]


def test_a_number_that_the_model_has_too_is_no_stand_in(attempts, tmp_path):
    model = trained([keras.Input((4,)), layers.Dense(4), layers.ReLU(), layers.Dense(4, use_bias=True)])
    number = np.uint32(standins.FIRST_NUMBER).view(np.float32)
    model.layers[0].bias.assign(np.full(4, number))
    assert proven(model, tmp_path / "model.tflite").passed
    assert attempts == [(2, None)]
