"""TFLite fp16, int8-dynamic and int4: numbers with every set of LiteRT's kernels, and what the files are made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from mh_edge.artifact import Artifact, file_sha256
from mh_edge.errors import ConversionError, InputError, UsageError
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, Quantized, find_scheme
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.schemes.fp16 import SHARED, UNFIT
from mh_edge.quantization.tflite.schemes.int4 import CLIPPING
from mh_edge.quantization.tflite.weights import MASKING, Recipe, by_recipe, weights

KERNELS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)

MEAN_ERROR = {"fp16": 0.001, "int8-dynamic": 0.025, "int4": 0.25}
"""Of an output, in units of its standard deviation, for random weights: 1.6 to 2 times what was measured."""

SIZE = {"fp16": 0.58, "int8-dynamic": 0.39, "int4": 0.28}
"""Of the small model beside its float file."""

RIGHT, WRONG = 0.03, 0.1
"""How far two sets of kernels are apart where they compute the same and round otherwise; and where they do not."""

SCHEMES = tuple(MEAN_ERROR)
ROWS, DIM, STEPS = 40, 16, 6


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A table, a loop with a product in it, four kinds of convolutions: all that holds weights."""
    rng = np.random.default_rng(0)

    def weight(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32) / np.sqrt(np.prod(shape[:-1])).astype(np.float32)

    table, turn, first, deep, back = (
        rng.normal(size=(ROWS, DIM)).astype(np.float32),
        weight(2, DIM, DIM),
        weight(3, 3, 4, 8),
        weight(3, 3, 8, 4),
        weight(3, 3, 8, 32),
    )

    def call(ids: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
        rows = tf.gather(table, ids)
        _, state = tf.while_loop(
            lambda step, _: step < STEPS,
            lambda step, state: (step + 1, tf.tanh(tf.matmul(state, turn) + rows[0, step])),
            (0, tf.zeros((2, 1, DIM))),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([2, 1, DIM])),
        )
        y = tf.nn.conv2d(image, first, 1, "SAME")
        y = tf.nn.depthwise_conv2d(y, deep, (1, 1, 1, 1), "SAME")
        y = tf.nn.conv2d_transpose(y, back, (1, 6, 6, 8), 1, "SAME")
        return tf.concat([tf.reshape(state, (1, -1)), tf.reduce_mean(y, (1, 2))], -1)

    inputs = [tf.TensorSpec((1, STEPS), tf.int32, name="ids"), tf.TensorSpec((1, 6, 6, 4), name="image")]
    return written(call, inputs, tmp_path_factory.mktemp("foreign") / "all.tflite")


def written(function: Callable[..., tf.Tensor], inputs: Sequence[tf.TensorSpec], path: Path) -> Artifact:
    concrete = tf.function(function, input_signature=inputs, autograph=False).get_concrete_function()
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module()).convert())
    return inspect(path)


def quantize(source: Artifact, name: str, path: Path, options: Options | None = None) -> Quantized:
    result = find_scheme("tflite", name).quantize(source, {}, options or Options())
    assert list(result.save(path)) == [path]
    return result


def outputs(path: Path, samples: Mapping[str, np.ndarray], kernels: OpResolverType) -> np.ndarray:
    """One sample at a time."""
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=kernels)
    run = interpreter.get_signature_runner()
    count = len(next(iter(samples.values())))
    each = (run(**{name: values[i : i + 1] for name, values in samples.items()}) for i in range(count))
    return np.concatenate([found.popitem()[1] for found in each])


def off(y: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(y - reference).mean() / reference.std())


def of_foreign() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "ids": rng.integers(ROWS, size=(12, STEPS), dtype=np.int32),
        "image": rng.normal(size=(12, 6, 6, 4)).astype(np.float32),
    }


def tensors(path: Path) -> list[Any]:
    from ai_edge_litert.tools import flatbuffer_utils

    return [tensor for graph in flatbuffer_utils.read_model(str(path)).subgraphs for tensor in graph.tensors]


FORMS = [("fp16", True), *((name, per_channel) for name in ("int8-dynamic", "int4") for per_channel in (True, False))]


@pytest.mark.parametrize(("name", "per_channel"), FORMS)
def test_attention_and_fully_masked_rows(exported, samples, name, per_channel, tmp_path):
    source, path = exported["tflite"], tmp_path / "q.tflite"
    result = quantize(source, name, path, Options(per_channel=per_channel))
    blind = {"x": samples["x"], "valid": np.zeros_like(samples["valid"])}
    for feeds in (samples, blind):
        truth = outputs(source.path, feeds, OpResolverType.AUTO)
        found = [outputs(path, feeds, kernels) for kernels in KERNELS]
        assert all(0 < off(y, truth) < MEAN_ERROR[name] for y in found)
    assert path.stat().st_size < SIZE[name] * source.path.stat().st_size
    assert result.kept_float == ()


@pytest.mark.parametrize(("name", "per_channel"), FORMS)
def test_tables_loops_and_every_kind_of_convolution(foreign, name, per_channel, tmp_path):
    path = tmp_path / "q.tflite"
    result = quantize(foreign, name, path, Options(per_channel=per_channel))
    assert result.kept_float == ()
    for kernels in KERNELS:
        found, truth = (outputs(file, of_foreign(), kernels) for file in (path, foreign.path))
        assert 0 < off(found, truth) < MEAN_ERROR[name]
    types = {tuple(tensor.shape): tensor.type for tensor in tensors(path) if tensor.buffer and tensor.shape is not None}
    half, whole = litert.schema().TensorType.FLOAT16, litert.schema().TensorType.INT8
    assert types[ROWS, DIM] == (half if name == "fp16" else whole)


def test_per_channel_and_per_tensor(exported, tmp_path):
    def scales(per_channel: bool) -> set[int]:
        quantize(exported["tflite"], "int8-dynamic", tmp_path / "q.tflite", Options(per_channel=per_channel))
        stored = [
            one for one in tensors(tmp_path / "q.tflite") if one.shape is not None and list(one.shape) == [64, 64]
        ]
        return {len(one.quantization.scale) for one in stored}

    assert scales(True) == {64}
    assert scales(False) == {1}


def test_int4_without_what_some_kernels_get_wrong(exported, samples, tmp_path):
    source, path = exported["tflite"], tmp_path / "q.tflite"
    quantize(source, "int4", path)
    with_xnnpack, without = (outputs(path, samples, kernels) for kernels in KERNELS[:2])
    assert off(without, with_xnnpack) < RIGHT
    packed = [tensor for tensor in tensors(path) if tensor.type == litert.schema().TensorType.INT4]
    assert packed

    recipe = Recipe(Options())
    recipe.dynamic(".*", 4, CLIPPING)
    path.write_bytes(by_recipe(litert.read(source.path), Options(), recipe)[0])
    with_xnnpack, without = (outputs(path, samples, kernels) for kernels in KERNELS[:2])
    assert off(without, with_xnnpack) > WRONG, "LiteRT's own kernels take -8 now: int4 need not avoid it"


def test_int4_tells_what_took_8_bits(exported, foreign, tmp_path):
    (small,) = quantize(exported["tflite"], "int4", tmp_path / "q.tflite").notes
    assert small.startswith("In 8 bits instead of 4: small_1/embed_1/mh_edge.Dense/MatMul1 (the smallest, 5% ")
    notes = quantize(foreign, "int4", tmp_path / "q.tflite").notes
    told = [note.partition(" 4: ")[2].split(" ", 1)[0] for note in notes]
    assert told == ["GatherV2", "depthwise2", "conv2d_transpose1", "while/MatMul"]
    assert ["no 4-bit form of" in note for note in notes] == [False, True, True, True]
    table_rows = 1  # integers as well
    eight = [tensor for tensor in tensors(tmp_path / "q.tflite") if tensor.type == litert.schema().TensorType.INT8]
    assert len(eight) == len(told) + table_rows


def test_int4_where_nothing_takes_4_bits(tmp_path):
    rng = np.random.default_rng(0)
    factor = rng.normal(size=(2, 16, 16)).astype("f4")
    x = tf.TensorSpec((2, 4, 16), name="x")
    source = written(lambda x: tf.matmul(x, factor), [x], tmp_path / "batched.tflite")
    with pytest.raises(ConversionError, match=r"int4 finds nothing to do in .* no 4-bit form of BATCH_MATMUL"):
        quantize(source, "int4", tmp_path / "q.tflite")


@pytest.mark.parametrize("name", SCHEMES)
def test_layers_kept_in_float(exported, name, tmp_path):
    source = exported["tflite"]
    (layer,) = {one.name.partition("/mh_edge.")[0] for one in read_operations(source) if "/attention" in one.name}
    result = quantize(source, name, tmp_path / "q.tflite", Options(keep_float=(layer,)))
    asked = [one.tensor for one in result.kept_float if one.reason == litert.ASKED_REASON]
    assert len(asked) == 3  # of q, k and v; the converter gave the product behind them the next layer's name
    assert all("attention" in tensor for tensor in asked)
    with pytest.raises(UsageError, match="no layer or operation of the file is called 'nowhere'"):
        quantize(source, name, tmp_path / "q.tflite", Options(keep_float=("nowhere",)))


def read_operations(source: Artifact) -> list[litert.Operation]:
    return litert.operations(litert.read(source.path))


def test_half_floats_that_would_not_hold_a_weight(tmp_path):
    weight = np.random.default_rng(0).normal(size=(4, 16, 16)).astype(np.float32)
    large, tiny, both = weight[0] * 1e6, weight[1] * 1e-9, weight[2]

    def call(x: tf.Tensor) -> tf.Tensor:
        y = tf.matmul(tf.matmul(x, large), weight[3])
        return tf.matmul(tf.tanh(tf.matmul(y, tiny)), both) + tf.matmul(x, both)

    source = written(call, [tf.TensorSpec((1, 16), name="x")], tmp_path / "large.tflite")
    result = quantize(source, "fp16", tmp_path / "q.tflite")
    assert [one.reason for one in result.kept_float] == [UNFIT, UNFIT]
    feeds = {"x": np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)}
    found, truth = (outputs(path, feeds, OpResolverType.AUTO) for path in (tmp_path / "q.tflite", source.path))
    assert off(found, truth) < MEAN_ERROR["fp16"]

    readers = [one for one in weights(litert.read(source.path)) if np.array_equal(one.values.T, both)]
    assert len(readers) == 2
    assert len({one.place for one in readers}) == 1
    kept = quantize(source, "fp16", tmp_path / "q.tflite", Options(keep_float=(readers[0].operation.name,)))
    assert (readers[1].operation.name, SHARED) in {(one.tensor, one.reason) for one in kept.kept_float}


@pytest.mark.parametrize("name", SCHEMES)
def test_channels_that_are_all_zeros(name, tmp_path):
    weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
    pruned = weight * (np.arange(16) > 2)

    def call(x: tf.Tensor) -> tf.Tensor:
        return tf.matmul(tf.tanh(tf.matmul(x, weight)), pruned) + tf.matmul(x, np.zeros_like(weight))

    source = written(call, [tf.TensorSpec((1, 16), name="x")], tmp_path / "pruned.tflite")
    quantize(source, name, tmp_path / "q.tflite")
    feeds = {"x": np.random.default_rng(1).normal(size=(8, 16)).astype(np.float32)}
    truth = outputs(source.path, feeds, OpResolverType.AUTO)
    for kernels in KERNELS:
        found = outputs(tmp_path / "q.tflite", feeds, kernels)
        assert off(found, truth) < MEAN_ERROR[name]
        assert not found[:, :3].any()


@pytest.mark.parametrize("hidden", [-1e4, -np.inf])
@pytest.mark.parametrize("name", SCHEMES)
def test_a_table_of_a_mask(name, hidden, tmp_path):
    rng = np.random.default_rng(0)
    weight, bias = rng.normal(size=(16, 16)).astype(np.float32), rng.normal(size=(16, 16)).astype(np.float32)
    table = np.where(np.tri(16, dtype=bool), bias, np.float32(hidden))

    def call(x: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.matmul(x, weight) / 4 + tf.gather(table, position))

    inputs = [tf.TensorSpec((1, 16), name="x"), tf.TensorSpec((1,), tf.int32, name="position")]
    source = written(call, inputs, tmp_path / "mask.tflite")
    result = quantize(source, name, tmp_path / "q.tflite")
    feeds = {"x": rng.normal(size=(16, 16)).astype(np.float32), "position": np.arange(16, dtype=np.int32)}
    found, truth = (outputs(path, feeds, OpResolverType.AUTO) for path in (tmp_path / "q.tflite", source.path))
    assert off(found, truth) < MEAN_ERROR[name]
    assert not found[~np.tri(16, dtype=bool)].any()
    # 16 bits hold 10000 as well as they hold any number.
    assert [one.reason for one in result.kept_float] == (
        [MASKING] if name != "fp16" else [UNFIT] if np.isinf(hidden) else []
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_files_that_cannot_be_quantized(exported, name, tmp_path):
    few = written(lambda x: tf.matmul(x, np.eye(4, dtype=np.float32)), [tf.TensorSpec((1, 4))], tmp_path / "few.tflite")
    if name == "fp16":
        with pytest.raises(ConversionError, match="keep their weights"):
            quantize(few, name, tmp_path / "q.tflite")
    none = written(lambda x: x + 1, [tf.TensorSpec((1, 4), name="x")], tmp_path / "none.tflite")
    with pytest.raises(ConversionError, match="no operation has weights"):
        quantize(none, name, tmp_path / "q.tflite")
    source = exported["tflite"]
    everything = tuple(one.name for one in read_operations(source))
    with pytest.raises(ConversionError, match="keep their weights"):
        quantize(source, name, tmp_path / "q.tflite", Options(keep_float=everything))
    quantize(source, "int8-dynamic", tmp_path / "done.tflite")
    with pytest.raises(InputError, match="is quantized already"):
        quantize(inspect(tmp_path / "done.tflite"), name, tmp_path / "q.tflite")
    source_bytes = source.path.read_bytes()
    cut = Artifact(**{**vars(source), "path": tmp_path / "cut.tflite"})
    cut.path.write_bytes(source_bytes[: len(source_bytes) // 3])
    with pytest.raises(InputError, match="truncated or damaged"):
        quantize(cut, name, tmp_path / "q.tflite")


_AGAIN = """
import sys
from pathlib import Path
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, find_scheme
source, folder = inspect(sys.argv[1]), Path(sys.argv[2])
for name in sys.argv[3:]:
    find_scheme("tflite", name).quantize(source, {}, Options()).save(folder / f"{name}.tflite")
print(sorted({"tensorflow", "keras"} & sys.modules.keys()))
"""


def test_the_same_bytes_in_another_process_in_silence_and_without_tensorflow(exported, tmp_path):
    command = [sys.executable, "-c", _AGAIN, str(exported["tflite"].path), str(tmp_path), *SCHEMES]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=120, env={"PYTHONHASHSEED": "3", "PATH": ""}
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    for name in SCHEMES:
        quantize(exported["tflite"], name, tmp_path / "here.tflite")
        assert file_sha256(tmp_path / "here.tflite") == file_sha256(tmp_path / f"{name}.tflite")
