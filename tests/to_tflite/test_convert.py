"""What the file says of itself, models of every kind, and that the same model gives the same bytes."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import mh_edge_tflite
from mh_edge.inspection import inspect
from mh_edge.layers import MultiHead, MultiHeadAttention, ScaledDotProductAttention
from mh_edge.program import program
from mh_edge.runtimes import open_session
from to_tflite.conversion import convert, operations, proven, tables, twins

layers = keras.layers


def several():
    """Inputs whose order is not the alphabet's, ids among them, and two outputs likewise."""
    text, other = keras.Input((None,), dtype="int32", name="text"), keras.Input((3,), name="also")
    kept = layers.Embedding(9, 4, mask_zero=True)(text)
    late = layers.LSTM(3, name="z")(kept)
    return keras.Model([text, other], [late, layers.Dense(2, name="a")(layers.Concatenate()([late, other]))])


def of_dict():
    inputs = {"right": keras.Input((4,), name="right"), "left": keras.Input((4,), name="left")}
    return keras.Model(inputs, {"sum": layers.Add()(list(inputs.values())), "left": layers.Dense(2)(inputs["left"])})


def nested():
    inner = keras.Sequential([keras.Input((None, 3)), layers.GRU(4, return_sequences=True), layers.Dense(3)])
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, MultiHead(layers.Dense(2), 2)(inner(inner(x))))


def shared():
    one, two = keras.Input((None, 4), name="one"), keras.Input((None, 4), name="two")
    layer = MultiHeadAttention(2)
    return keras.Model([one, two], [layer(layers.Masking()(one)), layer(two)])


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.heads = MultiHead(layers.LSTM(3), 2)
        self.last = layers.Dense(2, activation="softmax")

    def call(self, x):
        return self.last(self.heads(x))


def called():
    model = Subclassed()
    model(np.zeros((2, 5, 3), np.float32))
    return model


def dropped():
    x = keras.Input((None, 3), name="x")
    y = layers.LSTM(4, dropout=0.3, recurrent_dropout=0.2, return_sequences=True)(x)
    return keras.Model(x, layers.GRU(3, dropout=0.1)(layers.Dropout(0.5)(y)))


def gelu():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="gelu"), layers.Activation("celu")])


def causal():
    """Keras's own attention: its causal mask slices a free length with a new axis."""
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, layers.MultiHeadAttention(2, 3)(x, x, use_causal_mask=True))


def convolutions():
    x = keras.Input((None, 4), name="x")
    y = layers.BatchNormalization()(layers.Conv1D(6, 3, padding="causal", activation="relu")(x))
    y = layers.LayerNormalization()(layers.SeparableConv1D(4, 3, padding="same")(y))
    return keras.Model(x, layers.GlobalAveragePooling1D()(y))


def constants():
    x = keras.Input((3,), name="x")
    return keras.Model(x, layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 2.0, 4.0])(x))


def classes():
    """Keras's argmax looks at the sign bit of a float."""
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, keras.ops.argmax(layers.Dense(3)(x), axis=-1))


def softplus():
    """Beyond 88, where e^x overflows; in a loop's body too."""
    x = keras.Input((None, 4), name="x")
    wide = layers.Rescaling(99.0)(x)
    heads = MultiHead(layers.Dense(2, activation="log_sigmoid"), 2)(wide)
    return keras.Model(x, [layers.Activation("mish")(wide), heads, layers.GRU(3, activation="softplus")(wide)])


def along_axis_one():
    """Keras adds two batches of one sequence of one feature as if the second were a bias of channels."""
    x = keras.Input((8, 1), name="x")
    return keras.Model(x, layers.Add()([x, layers.Dense(1)(x)]))


MODELS = (several, of_dict, nested, shared, called, dropped, gelu, causal, convolutions, constants, classes)


def of_itself():
    """q = k, products of a tensor with itself and of two that are computed alike, masks that are one."""
    x = keras.Input((None, 4), name="x")
    kept = layers.Masking()(x)
    narrow, dense = keras.Input((None, 1), name="narrow"), layers.Dense(3)
    added = layers.Add()([layers.Activation("tanh")(kept), kept])
    return keras.Model(
        [x, narrow],
        [
            layers.Attention()([kept, kept], use_causal_mask=True),
            ScaledDotProductAttention()(narrow),
            layers.Dot(2)([x, x]),
            keras.ops.matmul(dense(x), keras.ops.transpose(dense(x), (0, 2, 1))),
            layers.GlobalAveragePooling1D()(added),
        ],
    )


MODELS += (softplus, along_axis_one, of_itself)


@pytest.mark.parametrize("build", MODELS, ids=lambda build: build.__name__)
def test_models_of_every_kind(build, tmp_path):
    keras.utils.set_random_seed(1)
    result = proven(build(), tmp_path / "model.tflite")
    assert result.passed, result.to_json()
    assert not twins(tmp_path / "model.tflite")


def test_the_file_has_keras_names_in_keras_order(tmp_path):
    source, path = convert(several(), tmp_path / "model.tflite")
    with open_session(path) as session:
        assert [tensor.name for tensor in session.signature.inputs] == ["text", "also"]
        assert [tensor.name for tensor in session.signature.outputs] == ["z", "a"]
        assert [tensor.dtype for tensor in session.signature.inputs] == ["int32", "float32"]
    assert [tensor.name for tensor in source.signature.inputs] == ["text", "also"]
    interpreter = Interpreter(str(path))
    assert [list(item["shape_signature"]) for item in interpreter.get_input_details()] == [[1, -1], [1, 3]]
    assert [item["name"] for item in interpreter.get_input_details()] == ["text", "also"]
    assert set(interpreter.get_signature_list()) == {"serving_default"}
    outputs = interpreter.get_signature_runner()(text=np.ones((1, 4), np.int32), also=np.ones((1, 3), np.float32))
    assert {name: value.shape for name, value in outputs.items()} == {"z": (1, 3), "a": (1, 2)}


def test_an_input_that_nothing_reads_stays(tmp_path):
    x, unused = keras.Input((3,), name="x"), keras.Input((2,), name="unused")
    _, path = convert(keras.Model([unused, x], layers.Dense(2)(x)), tmp_path / "model.tflite")
    with open_session(path) as session:
        assert [tensor.name for tensor in session.signature.inputs] == ["unused", "x"]
        assert session.run({"unused": np.zeros((1, 2), np.float32), "x": np.ones((1, 3), np.float32)})


def test_an_input_that_is_an_output_has_both_names(tmp_path):
    x = keras.Input((3,), name="x")
    _, path = convert(
        keras.Model(x, [layers.Identity(name="same")(x), layers.Dense(2, name="y")(x)]), tmp_path / "m.tflite"
    )
    feed = np.ones((1, 3), np.float32)
    with open_session(path) as session:
        np.testing.assert_array_equal(session.run({"x": feed})["same"], feed)


def test_infinity_stays_infinity(tmp_path):
    x = keras.Input((3,), name="x")
    _, path = convert(keras.Model(x, keras.ops.where(x > 0, x, -np.inf)), tmp_path / "model.tflite")
    with open_session(path) as session:
        (result,) = session.run({"x": np.array([[1, -1, 2]], np.float32)}).values()
    np.testing.assert_array_equal(result, [[1, -np.inf, 2]])


def test_a_larger_batch(tmp_path):
    source, path = convert(shared(), tmp_path / "model.tflite", batch=3)
    rng = np.random.default_rng(0)
    feed = {name: rng.normal(size=(3, 5, 4)).astype(np.float32) for name in ("one", "two")}
    with open_session(path) as session:
        got = session.run(feed)
    for name, expected in source.run(feed).items():
        np.testing.assert_allclose(got[name], expected, rtol=0, atol=1e-6)


def test_rules_are_counted_and_written_into_the_file(tmp_path):
    source = program(nested())
    converted = mh_edge_tflite.convert(source, source.signature.pin({"batch": 1}))
    assert converted.format == "tflite"
    assert converted.opset is None
    assert converted.rules == {"Dense": 2, "GRU": 2, "MultiHead": 1}  # the inner model is called twice
    converted.save(tmp_path / "model.tflite")
    model = tables(tmp_path / "model.tflite")
    (entry,) = [item for item in model.metadata if item.name == b"mh_edge"]
    assert json.loads(bytes(model.buffers[entry.buffer].data)) == {"rules": dict(converted.rules)}
    made = inspect(tmp_path / "model.tflite").made
    assert sorted(made) == ["Dense", "GRU", "MultiHead"]
    assert made["Dense"] == {"FULLY_CONNECTED": 2}
    assert made["GRU"]["WHILE"] >= 2


def test_weights_are_aligned_as_the_schema_demands(tmp_path):
    _, path = convert(several(), tmp_path / "model.tflite")
    content = path.read_bytes()
    model = schema.Model.GetRootAs(content, 0)
    start = _address(np.frombuffer(content, np.uint8))
    buffers = [model.Buffers(index) for index in range(model.BuffersLength())]
    places = [_address(buffer.DataAsNumpy()) - start for buffer in buffers if not buffer.DataIsNone()]
    assert places
    assert not [place for place in places if place % 16]


def _address(array):
    return array.__array_interface__["data"][0]


TWICE = """
import hashlib, sys, keras, mh_edge_tflite
from pathlib import Path
from mh_edge.program import program
other = keras.Sequential([keras.Input((None, 2)), keras.layers.LSTM(2)])
mh_edge_tflite.convert(program(other), program(other).signature.pin({"batch": 1}))
source = program(keras.saving.load_model(sys.argv[1]))
mh_edge_tflite.convert(source, source.signature.pin({"batch": 1})).save(Path(sys.argv[2]))
"""


def test_the_same_model_gives_the_same_bytes(tmp_path):
    """Twice in one process, and in another process after another model."""
    x = keras.Input((None, 4), name="x")
    kept = layers.Masking()(x)
    heads = MultiHead(layers.Bidirectional(layers.LSTM(3, return_sequences=True)), 2)(kept)
    keras.Model(x, [heads, MultiHeadAttention(2, history_only=True)(kept)]).save(tmp_path / "model.keras")
    files = [tmp_path / f"{number}.tflite" for number in range(3)]
    for file in files[:2]:
        convert(keras.saving.load_model(tmp_path / "model.keras"), file)
    subprocess.run([sys.executable, "-c", TWICE, tmp_path / "model.keras", files[2]], check=True, env=_environment())
    assert len({hashlib.sha256(file.read_bytes()).hexdigest() for file in files}) == 1


def _environment():
    return os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}


def test_a_free_length_asks_no_shapes_of_dense_layers(tmp_path):
    x = keras.Input((None, 4), name="x")
    _, path = convert(keras.Model(x, layers.Dense(2)(layers.Dense(3, activation="relu")(x))), tmp_path / "m.tflite")
    assert dict(operations(path)) == {"FULLY_CONNECTED": 2}


MEMORY = """
import threading, time, keras, mh_edge_tflite
from pathlib import Path
from mh_edge.program import program

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def converted(*widths):
    source = program(keras.Sequential([keras.Input((widths[0],)), *map(keras.layers.Dense, widths[1:])]))
    return source, lambda: mh_edge_tflite.convert(source, source.signature.pin({"batch": 1}))

_, small = converted(4, 4)
small()
source, large = converted(*[1600] * 7)
before = highest = resident()
running = True

def watch():
    global highest
    while running:
        highest = max(highest, resident())
        time.sleep(0.005)

watcher = threading.Thread(target=watch)
watcher.start()
large()
running = False
watcher.join()
print((highest - before) / sum(variable.value.numpy().nbytes for variable in source.variables))
"""

MOST_MEMORY = 6.0
"""Times the weights; 3 were measured, and 9 when the converter saw the kernels."""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_stays_a_small_multiple_of_the_weights():
    done = subprocess.run([sys.executable, "-c", MEMORY], check=True, env=_environment(), stdout=subprocess.PIPE)
    assert 1.0 < float(done.stdout) < MOST_MEMORY
