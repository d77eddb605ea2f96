"""What cannot become a TFLite file is refused in a sentence that names the operation, the layer and the way on."""

from __future__ import annotations

import importlib
import os

import keras
import pytest
import tensorflow as tf

from mh_edge.errors import ConversionError, InputError
from mh_edge.runtimes import open_session
from refusal import refused
from to_tflite.conversion import convert

layers = keras.layers


class Custom(layers.Layer):
    """A layer of one TensorFlow function."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, x):
        return self.function(x)


def model(function, *shape):
    return keras.Sequential([keras.Input(shape, name="x"), Custom(function, name="strange")])


def error_of(function, *shape, tmp_path, kind=ConversionError):
    return refused(lambda: convert(model(function, *shape), tmp_path / "model.tflite"), kind)


def test_an_operation_without_a_built_in_form(tmp_path):
    error = error_of(lambda x: tf.math.erfinv(x) + tf.math.betainc(x, x, x), 3, tmp_path=tmp_path)
    assert "Betainc (layer 'strange'), Erfinv (layer 'strange')" in error.message
    assert "--" not in error.hint
    assert not (tmp_path / "model.tflite").exists()


def test_a_free_length_that_needs_to_be_fixed(tmp_path):
    error = error_of(lambda x: tf.math.erfinv(x), None, 3, tmp_path=tmp_path)
    assert "--sequence N" in error.hint
    error = error_of(lambda x: tf.math.erfinv(x), None, None, 3, tmp_path=tmp_path)
    assert "--dim height=N --dim width=N" in error.hint


def test_a_model_that_cannot_be_traced(tmp_path):
    x = keras.Input((3,), name="x")

    class Branching(layers.Layer):
        def call(self, x):
            return x + 1 if keras.ops.sum(x) > 0 else x

        def compute_output_spec(self, x):
            return keras.KerasTensor(x.shape, x.dtype)

    branching = keras.Model(x, Branching()(x))
    error = refused(lambda: convert(branching, tmp_path / "model.tflite"), ConversionError)
    assert "cannot trace the model" in error.message


def test_random_numbers(tmp_path):
    error = error_of(lambda x: x + tf.random.normal(tf.shape(x)), 3, tmp_path=tmp_path, kind=InputError)
    assert "random" in error.message


def test_random_numbers_inside_a_loop(tmp_path):
    def loop(x):
        return tf.while_loop(lambda n, _: n < 3, lambda n, y: (n + 1, y + tf.random.normal(tf.shape(y))), (0, x))[1]

    error = error_of(loop, 3, tmp_path=tmp_path, kind=InputError)
    assert "random" in error.message


def test_weights_beyond_what_a_flatbuffer_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.import_module("mh_edge_tflite.convert"), "LARGEST", 40)
    large = keras.Sequential([keras.Input((3,), name="x"), layers.Dense(4)])
    error = refused(lambda: convert(large, tmp_path / "model.tflite"), ConversionError)
    assert "GB" in error.message
    assert "ONNX" in error.hint


def test_a_refusal_writes_nothing_to_standard_error(tmp_path, capfd):
    error_of(lambda x: tf.math.erfinv(x), 3, tmp_path=tmp_path)
    os.write(2, b"still open")
    assert capfd.readouterr().err == "still open"


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_other_input_types_are_kept(dtype, tmp_path):
    x = keras.Input((3,), dtype=dtype, name="x")
    _, path = convert(keras.Model(x, keras.ops.cast(x, "float32") * 2), tmp_path / "model.tflite")
    with open_session(path) as session:
        assert session.signature.inputs[0].dtype == dtype
