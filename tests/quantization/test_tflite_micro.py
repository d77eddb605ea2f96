"""TFLite Micro: full-integer files of ours run there and give LiteRT's answers; the arena; what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import mh_edge
from mh_edge.errors import InputError, UnavailableError
from mh_edge.layers import MultiHead, MultiHeadAttention, SeqWeightedAttention
from mh_edge.quantization.scheme import Options, find_scheme
from mh_edge.runtimes.tflite_micro import Arena, MicroSession, arena
from mh_edge.runtimes.xnnpack import XnnpackSession
from tests.quantization.test_tflite_weights import written

pytest.importorskip("tflite_micro")

STEPS_OFF = 2
"""Integer kernels of LiteRT and of TFLite Micro round otherwise: as many steps of the output at most (1 was seen)."""

FLOAT_OFF = 1e-5

_FITS = """
import sys
from pathlib import Path
from tflite_micro import runtime
runtime.Interpreter.from_bytes(Path(sys.argv[1]).read_bytes(), arena_size=int(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def full(exported, samples, tmp_path_factory) -> Path:
    """The small model in 8-bit integers, inputs and outputs too."""
    path = tmp_path_factory.mktemp("micro") / "full.tflite"
    scheme, options = find_scheme("tflite", "int8"), Options(integer_io=True)
    feeds = [{name: values[i : i + 1] for name, values in samples.items()} for i in range(32)]
    ranges = scheme.calibrate(exported["tflite"], options, feeds)
    scheme.quantize(exported["tflite"], ranges, options).save(path)
    return path


def answers(session: XnnpackSession | MicroSession, samples: dict[str, np.ndarray]) -> np.ndarray:
    """The first output, one sample at a time; floats are made integers where the file takes these."""
    found = []
    for i in range(len(samples["x"])):
        feed = {name: values[i : i + 1] for name, values in samples.items()}
        for name, scale in session.input_scales.items():
            feed[name] = scale.integers(feed[name])
        found.append(session.run(feed)[session.signature.outputs[0].name])
    return np.concatenate(found)


def test_a_full_integer_file_gives_what_litert_gives(full, exported, samples):
    with MicroSession(full) as micro, XnnpackSession(full) as lite:
        assert micro.signature == lite.signature
        assert (micro.input_scales, micro.output_scales) == (lite.input_scales, lite.output_scales)
        (scale,) = micro.output_scales.values()
        found, expected = answers(micro, samples), answers(lite, samples)
    assert found.dtype == expected.dtype == np.int8
    assert np.abs(found.astype(int) - expected).max() <= STEPS_OFF
    assert len(np.unique(found)) > 20, "the answers do not depend on the samples"
    with XnnpackSession(exported["tflite"].path) as whole:
        assert np.abs(scale.numbers(found) - answers(whole, samples)).max() < 8 * scale.scale


def test_a_float_file(exported, samples):
    path = exported["tflite"].path
    with MicroSession(path) as micro, XnnpackSession(path) as lite:
        assert np.abs(answers(micro, samples) - answers(lite, samples)).max() < FLOAT_OFF


def test_the_arena_is_the_least(full):
    with MicroSession(full) as session:
        arena = session.arena_bytes

    def fits(size: int) -> bool:
        # Too small an arena may end in a crash.
        done = subprocess.run([sys.executable, "-c", _FITS, str(full), str(size)], capture_output=True)
        return done.returncode == 0

    assert fits(arena)
    assert not fits(arena * 9 // 10)
    assert 1_000 < arena < full.stat().st_size


def test_what_it_cannot_run(exported, tmp_path, capfd):
    def refused(path: Path) -> str:
        with pytest.raises(InputError) as error:
            MicroSession(path)
        return str(error.value)

    image = tf.TensorSpec((1, 4), name="x")
    gelu = written(lambda x: tf.nn.gelu(x), [image], tmp_path / "gelu.tflite")
    assert "TFLite Micro has no operation GELU" in refused(gelu.path)
    free = written(lambda x: x + 1, [tf.TensorSpec((None, 4), name="x")], tmp_path / "free.tflite")
    assert "needs fixed sizes" in refused(free.path)
    find_scheme("tflite", "int4").quantize(exported["tflite"], {}, Options()).save(tmp_path / "q.tflite")
    refusal = refused(tmp_path / "q.tflite")
    assert "does not take its FULLY_CONNECTED: " in refusal
    assert "float files and full-integer ones" in refusal
    (tmp_path / "cut.tflite").write_bytes(exported["tflite"].path.read_bytes()[:5000])
    assert "truncated or damaged" in refused(tmp_path / "cut.tflite")
    printed = capfd.readouterr()
    assert "GELU" not in printed.out + printed.err


def test_the_arena_or_a_sentence_why_there_is_none(exported, full, tmp_path, monkeypatch):
    with MicroSession(full) as session:
        assert arena(full) == Arena(session.arena_bytes)
    gelu = written(lambda x: tf.nn.gelu(x), [tf.TensorSpec((1, 4), name="x")], tmp_path / "gelu.tflite")
    assert arena(gelu.path) == Arena(None, "TFLite Micro has no operation GELU.")
    free = written(lambda x: x + 1, [tf.TensorSpec((None, 4), name="x")], tmp_path / "free.tflite")
    sizes = "TFLite Micro needs fixed sizes, and the input 'x' has the free shape (x_dim_0, 4)."
    assert arena(free.path) == Arena(None, sizes)
    find_scheme("tflite", "int4").quantize(exported["tflite"], {}, Options()).save(tmp_path / "q.tflite")
    found = arena(tmp_path / "q.tflite")
    assert found.bytes is None
    assert found.reason.startswith("TFLite Micro does not take its FULLY_CONNECTED: ")
    assert ".cc:" not in found.reason
    assert "q.tflite" not in found.reason
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    assert "mh-edge[micro]" in arena(full).reason


@pytest.mark.parametrize("integers", [False, True])
def test_padding_that_masking_finds(integers, tmp_path):
    """LiteRT says which steps are all padding with an operation that TFLite Micro lacks."""

    def masked(x: tf.Tensor) -> tf.Tensor:
        h = tf.cast(x, tf.float32) / 50 if integers else x
        valid = tf.reduce_any(tf.not_equal(x, 0), axis=-1)
        scores = tf.matmul(h, h, transpose_b=True) + -1e4 * tf.cast(~valid, tf.float32)[:, None]
        return tf.nn.softmax(scores) @ tf.tanh(h)

    kind = tf.int32 if integers else tf.float32
    source = written(masked, [tf.TensorSpec((1, 5, 3), kind, name="x")], tmp_path / "float.tflite")
    assert source.ops["REDUCE_ANY"] == 1
    rng = np.random.default_rng(0)
    x = rng.integers(-50, 51, (40, 5, 3)) if integers else rng.normal(size=(40, 5, 3))
    x = np.where(np.arange(5) < rng.integers(0, 6, (40, 1)), x.transpose(2, 0, 1), 0).transpose(1, 2, 0)
    x = np.concatenate([np.zeros((1, 5, 3)), x]).astype(kind.as_numpy_dtype)
    scheme = find_scheme("tflite", "int8")
    ranges = scheme.calibrate(source, Options(), [{"x": one[None]} for one in x])
    path = tmp_path / "q.tflite"
    made = scheme.quantize(source, ranges, Options())
    assert any("compares in integers: what rounds" in note for note in made.notes) != integers
    made.save(path)
    assert arena(path).bytes is not None
    with MicroSession(path) as micro, XnnpackSession(path) as lite, XnnpackSession(source.path) as whole:
        found, expected, exact = (answers(session, {"x": x}) for session in (micro, lite, whole))
    assert np.abs(found - expected).max() <= STEPS_OFF / 128
    assert np.abs(expected - exact).max() < 0.1 < np.abs(exact).max()


def test_a_masked_attention_of_ours(tmp_path):
    """With rows that are padding throughout."""
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 5), name="x")
    h = keras.layers.Dense(16, activation="relu")(keras.layers.Masking()(x))
    h = keras.layers.Add()([h, MultiHeadAttention(head_num=2, activation="tanh")(h)])
    h = keras.layers.Flatten()(MultiHead(SeqWeightedAttention(), layer_num=2)(h))
    model = keras.Model(x, keras.layers.Dense(4, activation="softmax", name="y")(h))
    source = mh_edge.export(model, tmp_path, formats=("tflite",), verify=False).artifacts[0]
    rng = np.random.default_rng(0)
    feeds = rng.normal(size=(40, 6, 5)) * (np.arange(6) < rng.integers(0, 7, (40, 1)))[:, :, None]
    feeds[0] = 0
    feeds = feeds.astype("float32")
    scheme, path = find_scheme("tflite", "int8"), tmp_path / "q.tflite"
    ranges = scheme.calibrate(source, Options(), [{"x": one[None]} for one in feeds])
    scheme.quantize(source, ranges, Options()).save(path)
    assert arena(path).bytes is not None
    with MicroSession(path) as micro, XnnpackSession(path) as lite, XnnpackSession(source.path) as whole:
        found, expected, exact = (answers(session, {"x": feeds}) for session in (micro, lite, whole))
    assert np.abs(found - expected).max() <= STEPS_OFF / 256
    assert np.abs(expected - exact).max() < 0.1


def test_feeds_are_checked(exported, samples):
    with MicroSession(exported["tflite"].path) as session, pytest.raises(InputError, match="must be 6, not 3"):
        session.run({"x": samples["x"][:1, :3], "valid": samples["valid"][:1]})


def test_without_the_package(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(UnavailableError, match=r'pip install "mh-edge\[micro\]"'):
        MicroSession(exported["tflite"].path)
