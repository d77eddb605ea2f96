"""TFLite int8 and int16x8: numbers on attention of ours and of others, and what the files are made of."""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from mh_edge.artifact import Artifact
from mh_edge.errors import InputError, UsageError
from mh_edge.inspection import inspect
from mh_edge.layers import SeqWeightedAttention
from mh_edge.quantization.auto.parts import resolved
from mh_edge.quantization.scheme import Options, Quantized, Ranges, find_scheme
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.rewriting import rewrite
from tests.to_tflite.conversion import convert, operations

TIME, DIM = 8, 16
SCHEMES = ("int8", "int16x8")
Feeds = Mapping[str, np.ndarray]

MEAN_ERROR = {"int8": 0.05, "int16x8": 0.02}
"""Of outputs in units of their standard deviation, for attention with random weights: 1.3 times what was measured."""

PLAIN_ERROR = 0.3
"""What litert-quantizer's own recipe loses at least where −10000 is in a range."""

FUTURE = np.triu(np.ones((TIME, TIME), np.float32), 1)
KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)


def hidden(valid: tf.Tensor) -> tf.Tensor:
    return 1 - tf.cast(valid, tf.float32)[:, None, :]


MASKS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "added": lambda s, valid: s + hidden(valid) * -10000.0,
    "added, 1e9": lambda s, valid: s + hidden(valid) * -1e9,
    "added, least float": lambda s, valid: s + hidden(valid) * -2.4e38,
    "subtracted": lambda s, valid: s - 10000.0 * hidden(valid),
    "shifted": lambda s, valid: s + (tf.cast(valid, tf.float32)[:, None, :] - 1) * 1e4,
    "chosen": lambda s, valid: tf.where(valid[:, None, :], s, -np.inf),
    "causal": lambda s, valid: s + FUTURE * -1e9,
    "two, summed first": lambda s, valid: s + (FUTURE * -1e4 + hidden(valid) * -1e4),
    "two, one after the other": lambda s, valid: (s + FUTURE * -1e4) + hidden(valid) * -1e4,
    "scaled after": lambda s, valid: (s + hidden(valid) * -1e4) * 0.5,
}


@pytest.fixture(scope="module", params=MASKS)
def foreign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """softmax(mask(q kᵀ / 4)) v through TensorFlow's converter alone."""
    masked = MASKS[request.param]
    rng = np.random.default_rng(0)
    weights = [rng.normal(size=(DIM, DIM)).astype(np.float32) / 2 for _ in range(3)]

    def attention(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        q, k, v = (tf.reshape(tf.matmul(tf.reshape(x, (TIME, DIM)), weight), (1, TIME, DIM)) for weight in weights)
        return tf.matmul(tf.nn.softmax(masked(tf.matmul(q, k, transpose_b=True) / 4, valid)), v)

    inputs = [tf.TensorSpec((1, TIME, DIM), name="x"), tf.TensorSpec((1, TIME), tf.bool, name="valid")]
    return written(attention, inputs, tmp_path_factory.mktemp("foreign") / "attention.tflite")


def written(function: Callable[..., tf.Tensor], inputs: Sequence[tf.TensorSpec], path: Path) -> Artifact:
    concrete = tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())
    return inspect(path)


def feeds(count: int, seed: int, *, none_valid: bool = False) -> list[Feeds]:
    """Left and right padding in turn; each in [−2, 2], so that a few samples show the whole range."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        valid = np.arange(TIME) < (0 if none_valid else rng.integers(1, TIME + 1))
        x = rng.uniform(-2, 2, size=(1, TIME, DIM)).astype(np.float32)
        made.append({"x": x, "valid": np.array(valid[None, :: 1 - 2 * (number % 2)])})
    return made


def fit(source: Artifact, batches: Iterable[Feeds]) -> Iterator[Feeds]:
    names = [tensor.name for tensor in source.inputs]
    return ({name: batch[name] for name in names} for batch in batches)


def quantized(
    source: Artifact, name: str, batches: Iterable[Feeds], path: Path, options: Options | None = None
) -> tuple[Quantized, Ranges]:
    scheme, options = find_scheme("tflite", name), options or Options()
    assert scheme.calibrate is not None
    ranges = scheme.calibrate(source, options, fit(source, batches))
    result = scheme.quantize(source, ranges, options)
    assert list(result.save(path)) == [path]
    return result, ranges


def outputs(path: Path, batches: Iterable[Feeds], kernels: OpResolverType = OpResolverType.AUTO) -> np.ndarray:
    """Floats, whatever the file takes and gives."""
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)
    run = interpreter.get_signature_runner()
    ins, (out,) = run.get_input_details(), run.get_output_details().values()
    results = []
    for batch in batches:
        y = run(**{name: _as_taken(batch[name], item) for name, item in ins.items()}).popitem()[1]
        scale, zero = out["quantization"]
        results.append((y.astype(np.float64) - zero) * scale if scale else y)
    return np.array(results, np.float64)


def _as_taken(values: np.ndarray, item: Mapping) -> np.ndarray:
    if item["dtype"] not in (np.int8, np.int16):
        return values
    scale, zero = item["quantization"]
    limits = np.iinfo(item["dtype"])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(item["dtype"])


def off(y: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(y - reference).mean() / reference.std())


@pytest.mark.parametrize("name", SCHEMES)
def test_masks_of_any_file_hide_in_integers(foreign, name, tmp_path):
    result, _ = quantized(foreign, name, feeds(40, 0), tmp_path / "q.tflite")
    some, blind = feeds(30, 1), feeds(5, 2, none_valid=True)
    for kernels in KERNELS:
        assert off(outputs(tmp_path / "q.tflite", some, kernels), outputs(foreign.path, some)) < MEAN_ERROR[name]
        assert off(outputs(tmp_path / "q.tflite", blind, kernels), outputs(foreign.path, blind)) < MEAN_ERROR[name]
    assert result.kept_float == ()
    assert any(change.after.low > -100 > change.before.low for change in result.ranges if change.why)


def test_the_quantizers_own_recipe_loses_what_is_masked(foreign, tmp_path):
    if -np.inf < _deepest(foreign) < -1e30:
        pytest.skip("−2.4e38 in a range aborts the process")
    from litert_quantizer import recipe

    path = tmp_path / "plain.tflite"
    ranges = litert.observe(foreign, Options(), fit(foreign, feeds(40, 0)))
    entries = [*recipe.static_wi8_ai8(), litert.no_quantize("^", "INPUT"), litert.no_quantize("^", "OUTPUT")]
    path.write_bytes(litert.quantized(litert.pack(litert.read(foreign.path)), entries, ranges))
    assert off(outputs(path, feeds(30, 1)), outputs(foreign.path, feeds(30, 1))) > PLAIN_ERROR


def _deepest(source: Artifact) -> float:
    model = litert.read(source.path)
    found = (litert.constant(model, index) for index in range(len(model.subgraphs[0].tensors)))
    return min(float(values.min()) for values in found if values is not None)


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("integer_io", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_file_of_ours_in_integers_throughout(exported, samples, tmp_path, name, integer_io, per_channel):
    source, path = exported["tflite"], tmp_path / "q.tflite"
    batches = [{key: values[i : i + 1] for key, values in samples.items()} for i in range(len(samples["x"]))]
    result, _ = quantized(source, name, batches, path, Options(per_channel=per_channel, integer_io=integer_io))
    made = inspect(path)
    integer = "int8" if name == "int8" else "int16"
    assert {tensor.name: tensor.dtype for tensor in (*made.inputs, *made.outputs)} == {
        tensor.name: integer if integer_io and tensor.dtype == "float32" else tensor.dtype
        for tensor in (*source.inputs, *source.outputs)
    }
    assert result.kept_float == ()
    assert off(outputs(path, batches), outputs(source.path, batches)) < MEAN_ERROR[name]
    scales = {
        tensor.name.decode(): len(tensor.quantization.scale)
        for tensor in litert.read_any(path.read_bytes()).subgraphs[0].tensors
        if tensor.quantization is not None and tensor.quantization.scale is not None
    }
    assert (max(scales.values()) > 1) == per_channel


def test_layers_named_stay_in_float(exported, samples, tmp_path):
    source = exported["tflite"]
    batches = [{key: values[i : i + 1] for key, values in samples.items()} for i in range(8)]
    softmax = next(one for one in litert.operations(litert.read(source.path)) if one.kind == "SOFTMAX").name
    result, _ = quantized(source, "int8", batches, tmp_path / "q.tflite", Options(keep_float=(softmax,)))
    assert [(kept.tensor, kept.reason) for kept in result.kept_float] == [(softmax, litert.ASKED_REASON)]
    assert next(change for change in result.ranges if change.tensor == softmax).after is not None  # what follows has it
    with pytest.raises(UsageError, match="nowhere_at_all"):
        quantized(source, "int8", batches, tmp_path / "q.tflite", Options(keep_float=("nowhere_at_all",)))


def test_a_softmax_written_out_becomes_one(tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((TIME, DIM), name="x")
    y = SeqWeightedAttention()(keras.layers.Masking()(x))
    _, path = convert(keras.Model(x, y), tmp_path / "pool.tflite")
    source = inspect(path)
    assert operations(path)["EXP"] == 1
    rng = np.random.default_rng(0)
    batches = []
    for length in range(1, TIME + 1):
        sample = rng.uniform(-2, 2, size=(1, TIME, DIM)).astype(np.float32)
        sample[:, length:] = 0
        batches.append({"x": sample})
    result, _ = quantized(source, "int8", batches, tmp_path / "q.tflite")
    assert not operations(tmp_path / "q.tflite").keys() & {"EXP", "SUM", "DIV", "REDUCE_ANY"}
    assert result.kept_float == ()
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(path, batches)) < MEAN_ERROR["int8"]
    model = litert.read(path)
    rewrite(model)
    (tmp_path / "rewritten.tflite").write_bytes(litert.pack(model))
    assert off(outputs(tmp_path / "rewritten.tflite", batches), outputs(path, batches)) < 1e-6


def test_loops_stay_in_float_with_their_weights_in_8_bits(tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((40, 8), name="x")
    _, path = convert(keras.Model(x, keras.layers.LSTM(48)(keras.layers.Masking()(x))), tmp_path / "lstm.tflite")
    assert operations(path)["WHILE"] == 1
    source, rng = inspect(path), np.random.default_rng(0)
    batches = [{"x": rng.uniform(-2, 2, size=(1, 40, 8)).astype(np.float32)} for _ in range(10)]
    result, _ = quantized(source, "int8", batches, tmp_path / "q.tflite")
    assert {kept.reason for kept in result.kept_float} >= {litert.LOOP_REASON}
    assert (tmp_path / "q.tflite").stat().st_size < 0.6 * path.stat().st_size
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(path, batches)) < MEAN_ERROR["int8"]


@pytest.mark.parametrize("name", SCHEMES)
def test_operations_without_an_integer_form(name, tmp_path):
    """|x| stays in float; constants in batched products have one scale, with more LiteRT is off by half the range;
    what may be divided by 0 is divided in float.
    """
    x = [tf.TensorSpec((1, 6, 4), name="x")]
    rng = np.random.default_rng(0)
    batches = [{"x": rng.uniform(-2, 2, size=(1, 6, 4)).astype(np.float32)} for _ in range(20)]
    only = written(tf.abs, x, tmp_path / "abs.tflite")
    result, _ = quantized(only, name, batches, tmp_path / "q.tflite")
    assert [kept.reason for kept in result.kept_float] == ["litert-quantizer has no integer form of ABS"]
    assert {change.after for change in result.ranges} == {None}
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(only.path, batches)) == 0

    weights = rng.normal(size=(1, 4, 5)).astype(np.float32) * [1, 0.1, 3, 0.3, 1]
    product = written(lambda x: tf.matmul(x, weights.astype(np.float32)), x, tmp_path / "product.tflite")
    quantized(product, name, batches, tmp_path / "q.tflite")
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(product.path, batches)) < MEAN_ERROR[name]

    quotient = written(lambda x: x / (x * x), x, tmp_path / "quotient.tflite")
    result, _ = quantized(quotient, name, batches, tmp_path / "q.tflite")
    assert ["divisor" in kept.reason for kept in result.kept_float] == [True]
    assert result.notes[0].startswith(f"Not integers throughout; in float: {result.kept_float[0].tensor}. ")


@pytest.mark.parametrize("name", SCHEMES)
def test_a_mean_over_nothing_stops_nobody(name, tmp_path):
    """A row without valid steps was not among the samples: its mean is 0 / 0, nan in float, at which an integer kernel
    ends the run.
    """

    def mean(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        share = tf.cast(valid, tf.float32)[:, :, None]
        return tf.reduce_sum(x * share, 1) / tf.reduce_sum(share, 1)

    inputs = [tf.TensorSpec((1, TIME, DIM), name="x"), tf.TensorSpec((1, TIME), tf.bool, name="valid")]
    source = written(mean, inputs, tmp_path / "mean.tflite")
    batches = feeds(20, 0)
    result, _ = quantized(source, name, batches, tmp_path / "q.tflite")
    assert operations(tmp_path / "q.tflite")["DIV"] == 1
    assert "by 0 it gives any number" in " ".join(result.notes)
    assert not result.kept_float
    nothing = {**batches[0], "valid": np.zeros((1, TIME), bool)}
    y = outputs(tmp_path / "q.tflite", [*batches, nothing])
    assert np.isfinite(y).all()
    assert off(y[:-1], outputs(source.path, batches)) < MEAN_ERROR[name]


def test_layers_named_are_kept_where_the_rewriting_takes_operations_out(tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((TIME, DIM), name="x")
    _, path = convert(keras.Model(x, SeqWeightedAttention(name="pool")(x)), tmp_path / "pool.tflite")
    source = inspect(path)
    batches = [{"x": batch["x"]} for batch in feeds(5, 0)]
    result, _ = quantized(
        source, "int8", batches, tmp_path / "q.tflite", Options(keep_float=resolved(["pool"], source))
    )
    assert not operations(tmp_path / "q.tflite").keys() & {"QUANTIZE", "DEQUANTIZE"}
    assert {kept.reason for kept in result.kept_float} == {litert.ASKED_REASON}


@pytest.mark.parametrize("name", SCHEMES)
def test_what_litert_stops_at_is_written_otherwise(name, tmp_path):
    """An output that is read inside as well; a part that nothing reads; a sum of numbers from 0 to 1, of two shapes;
    the least of two masks.
    """

    def attention(x: tf.Tensor) -> dict[str, tf.Tensor]:
        seen = tf.maximum(tf.clip_by_value(x[:, :1], -1.0, 0.0), -1.0) + 1.0
        masks = tf.minimum(FUTURE * -2.4e38, tf.cast(x[:, :, 0] > 1, tf.float32)[:, None, :] * -2.4e38)
        weights = tf.nn.softmax(tf.matmul(x, x, transpose_b=True) / 4 + masks)
        return {"weights": weights, "y": tf.matmul(weights, x) + seen, "part": tf.tanh(tf.split(x, 2, -1)[1])}

    source = written(attention, [tf.TensorSpec((1, TIME, DIM), name="x")], tmp_path / "two.tflite")
    batches = [{"x": batch["x"]} for batch in feeds(20, 0)]
    quantized(source, name, batches, tmp_path / "q.tflite")
    runs = [Interpreter(model_path=str(path)).get_signature_runner() for path in (source.path, tmp_path / "q.tflite")]
    for output in ("weights", "y", "part"):
        reference, y = (np.array([run(**batch)[output] for batch in batches]) for run in runs)
        assert off(y, reference) < MEAN_ERROR[name]


def test_a_tensor_that_is_always_the_same(tmp_path):
    """Calibrated on zeros and on a constant: the file opens, and is right there."""
    x = [tf.TensorSpec((1, 4), name="x")]
    source = written(lambda x: tf.nn.softmax(tf.matmul(x, np.eye(4, dtype=np.float32)) + 1.0), x, tmp_path / "x.tflite")
    for value in (0.0, 3.0, -3.0):
        batches = [{"x": np.full((1, 4), value, np.float32)}] * 2
        quantized(source, "int8", batches, tmp_path / "q.tflite")
        assert np.abs(outputs(tmp_path / "q.tflite", batches) - 0.25).max() <= 1 / 256


def test_one_batch_is_held_at_a_time(exported, samples):
    held: list[weakref.ref[np.ndarray]] = []

    def batches() -> Iterator[Feeds]:
        for i in range(20):
            assert sum(one() is not None for one in held) <= 1
            batch = {key: values[i : i + 1].copy() for key, values in samples.items()}
            held.append(weakref.ref(batch["x"]))
            yield batch
            del batch

    ranges = litert.observe(exported["tflite"], Options(), batches())
    assert ranges["x"].low == samples["x"][:20].min()
    assert ranges["x"].high == samples["x"][:20].max()


def test_files_that_cannot_be_quantized(exported, samples, tmp_path):
    source = exported["tflite"]
    batches = [{key: values[i : i + 1] for key, values in samples.items()} for i in range(4)]
    quantized(source, "int8", batches, tmp_path / "q.tflite")
    with pytest.raises(InputError, match="quantized already"):
        quantized(inspect(tmp_path / "q.tflite"), "int8", batches, tmp_path / "twice.tflite")
    cut = tmp_path / "cut.tflite"
    cut.write_bytes(source.path.read_bytes()[:-5000])
    with pytest.raises(InputError, match="damaged"):
        litert.read(cut)


ANEW = """
import sys, hashlib, numpy as np
from pathlib import Path
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, find_scheme
source, out = inspect(Path(sys.argv[1])), Path(sys.argv[2])
rng = np.random.default_rng(0)
batches = [{"x": rng.normal(size=(1, 6, 8)).astype("float32"), "valid": np.arange(6)[None] < 4} for _ in range(4)]
for name in ("int8", "int16x8"):
    scheme = find_scheme("tflite", name)
    scheme.quantize(source, scheme.calibrate(source, Options(), batches), Options()).save(out)
    print(hashlib.sha256(out.read_bytes()).hexdigest())
print(*(name for name in ("tensorflow", "keras") if name in sys.modules))
"""


def test_the_same_bytes_in_any_process_without_tensorflow(exported, tmp_path):
    """And nothing else is printed."""
    said = set()
    for seed in "12":
        done = subprocess.run(
            [sys.executable, "-c", ANEW, str(exported["tflite"].path), str(tmp_path / "q.tflite")],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
        assert "Transformations" not in done.stderr
    (one,) = said
    first, second, imported, *more = one.split("\n")
    assert len(first) == len(second) == 64
    assert imported == ""
    assert not any(more)
