"""What int8 and int16x8 of TFLite must not lose: biases beyond 32 bits, masks that more than softmax reads, rows that
are hidden whole; and what they must refuse.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

from mh_edge.artifact import Artifact
from mh_edge.errors import InputError
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, Quantized, schemes_for
from mh_edge.quantization.tflite import model as litert
from mh_edge.quantization.tflite.mask_sites import PARTLY, READ_ELSEWHERE, SUM_ELSEWHERE
from mh_edge.quantization.tflite.masks import WHY_MASK
from mh_edge.quantization.tflite.rewriting import rewrite
from mh_edge.quantization.tflite.static import NO_LOGARITHM
from tests.quantization.test_tflite_static import (
    DIM,
    FUTURE,
    KERNELS,
    SCHEMES,
    TIME,
    Feeds,
    off,
    outputs,
    quantized,
    written,
)

WIDE, MANY = 24, 32

BIAS_ERROR = {"int8": 0.015, "int16x8": 0.009}
"""What products with ordinary numbers lose; a bias that is cut off loses 4 % to 60 %."""

Layer = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Weights, bias, samples."""


def _normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def _dead(rng: np.random.Generator) -> Layer:
    weights = _normal(rng, WIDE, MANY)
    weights[:, ::3] = 0
    return weights, _normal(rng, MANY), _normal(rng, 60, WIDE)


def _nearly_dead(rng: np.random.Generator) -> Layer:
    weights, bias, samples = _dead(rng)
    weights[:, ::3] = 1e-4
    return weights, bias, samples


LAYERS: dict[str, Callable[[np.random.Generator], Layer]] = {
    "channels of zeros": _dead,
    "channels of nearly zeros": _nearly_dead,
    "small weights": lambda rng: (_normal(rng, WIDE, MANY) * 1e-6, _normal(rng, MANY) * 10, _normal(rng, 60, WIDE)),
    "samples of zeros": lambda rng: (_normal(rng, WIDE, MANY), _normal(rng, MANY), np.zeros((9, WIDE), np.float32)),
    "large biases": lambda rng: (_normal(rng, WIDE, MANY) * 0.02, _normal(rng, MANY) * 10, _normal(rng, 60, WIDE) / 4),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("per_channel", [True, False])
def test_biases_that_pass_32_bits(layer, name, per_channel, tmp_path):
    weights, bias, samples = LAYERS[layer](np.random.default_rng(0))
    source = written(
        lambda x: tf.nn.relu(tf.matmul(x, weights) + bias), [tf.TensorSpec((1, WIDE), name="x")], tmp_path / "x.tflite"
    )
    batches = [{"x": sample[None]} for sample in samples]
    quantized(source, name, batches, tmp_path / "q.tflite", Options(per_channel=per_channel))
    for kernels in KERNELS:
        assert off(outputs(tmp_path / "q.tflite", batches, kernels), outputs(source.path, batches)) < BIAS_ERROR[name]


@pytest.mark.parametrize("kind", ["convolution", "depthwise", "transposed"])
@pytest.mark.parametrize("name", SCHEMES)
def test_convolutions_with_channels_of_zeros(kind, name, tmp_path: Path):
    rng = np.random.default_rng(0)
    bias = _normal(rng, 8)
    weights = _normal(rng, 3, 3, 8, 1 if kind == "depthwise" else 8)
    weights[:, :, 1::4] = 0  # the inputs of some, the outputs of others
    weights[..., ::4] = 0 if kind == "convolution" else weights[..., ::4]

    def convolved(x: tf.Tensor) -> tf.Tensor:
        if kind == "convolution":
            return tf.nn.conv2d(x, weights, 1, "SAME") + bias
        if kind == "depthwise":
            return tf.nn.depthwise_conv2d(x, weights, [1] * 4, "SAME") + bias
        return tf.nn.conv2d_transpose(x, weights, (1, 10, 10, 8), 2) + bias

    source = written(convolved, [tf.TensorSpec((1, 5, 5, 8), name="x")], tmp_path / "x.tflite")
    batches = [{"x": sample[None]} for sample in _normal(rng, 30, 5, 5, 8)]
    quantized(source, name, batches, tmp_path / "q.tflite")
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(source.path, batches)) < 2 * BIAS_ERROR[name]


HIDE_ERROR = {"int8": 0.055, "int16x8": 0.02}
"""What an attention with random weights loses; with a mask cut off where it must not be it is 70 %, with scores that
have no steps left 60 %.
"""

INPUTS = [
    tf.TensorSpec((1, TIME, DIM), name="x"),
    tf.TensorSpec((1, TIME), name="valid"),
    tf.TensorSpec((1, TIME), name="given"),
]

Mask = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(q kᵀ, valid, mask as it is added) -> what the softmax takes."""


def attention(path: Path, mask: Mask, *, gain: float = 1.0) -> Artifact:
    """softmax(mask(gain · q kᵀ / 4)) v with random weights."""
    rng = np.random.default_rng(0)
    weights = [_normal(rng, DIM, DIM) / 2 for _ in range(3)]

    def attend(x: tf.Tensor, valid: tf.Tensor, given: tf.Tensor) -> tf.Tensor:
        q, k, v = (tf.matmul(x, weight) for weight in weights)
        scores = mask(tf.matmul(q, k, transpose_b=True) * (gain / 4), valid[:, None, :], given[:, None, :])
        return tf.matmul(tf.nn.softmax(scores), v)

    return written(attend, INPUTS, path)


def samples(count: int, seed: int, *, none_valid: bool = False) -> list[dict[str, np.ndarray]]:
    """valid is 1 or 0; given is 0 or −10000."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        valid = (np.arange(TIME)[None] < (0 if none_valid else rng.integers(1, TIME + 1))).astype(np.float32)
        x = rng.uniform(-2, 2, size=(1, TIME, DIM)).astype(np.float32)
        made.append({"x": x, "valid": valid, "given": (1 - valid) * -10000})
    return made


def losses(source: Artifact, name: str, path: Path) -> tuple[Quantized, float, float]:
    """What comes of it, and the errors where rows are hidden in part and where they are hidden whole."""
    result, _ = quantized(source, name, samples(60, 0), path)
    some, blind = samples(40, 1), samples(20, 2, none_valid=True)
    return result, *(off(outputs(path, each), outputs(source.path, each)) for each in (some, blind))


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("made", [True, False])
def test_a_mask_that_something_else_reads_is_not_cut_off_there(name, made, tmp_path):
    """One that is made gets a copy; one that is given cannot have any, so that the sum stays in float and says so."""
    weights = _normal(np.random.default_rng(0), DIM, DIM) / 2

    def attend(x: tf.Tensor, valid: tf.Tensor, given: tf.Tensor) -> dict[str, tf.Tensor]:
        mask = (1 - valid) * -10000.0 if made else given
        scores = tf.matmul(tf.matmul(x, weights), x, transpose_b=True) / 4 + mask[:, None, :]
        return {"y": tf.matmul(tf.nn.softmax(scores), x), "twice": mask + mask, "mean": tf.reduce_mean(mask, -1)}

    source = written(attend, INPUTS, tmp_path / "x.tflite")
    result, _ = quantized(source, name, samples(40, 0), tmp_path / "q.tflite")
    assert {kept.reason for kept in result.kept_float} == (set() if made else {READ_ELSEWHERE})
    reference, y = (by_name(path, source, samples(30, 1)) for path in (source.path, tmp_path / "q.tflite"))
    for output in ("y", "twice", "mean"):
        assert off(y[output], reference[output]) < HIDE_ERROR[name]


@pytest.mark.parametrize("name", SCHEMES)
def test_scores_with_their_mask_as_an_output(name, tmp_path):
    def attend(x: tf.Tensor, valid: tf.Tensor) -> dict[str, tf.Tensor]:
        total = tf.matmul(x, x, transpose_b=True) / 4 + ((1 - valid) * -10000.0)[:, None, :]
        return {"y": tf.matmul(tf.nn.softmax(total), x), "total": total}

    source = written(attend, INPUTS[:2], tmp_path / "x.tflite")
    result, _ = quantized(source, name, samples(40, 0), tmp_path / "q.tflite")
    assert {kept.reason for kept in result.kept_float} == {SUM_ELSEWHERE}
    reference, y = (by_name(path, source, samples(30, 1)) for path in (source.path, tmp_path / "q.tflite"))
    assert off(y["y"], reference["y"]) < HIDE_ERROR[name]
    assert off(y["total"], reference["total"]) < 1e-3


def by_name(path: Path, source: Artifact, batches: Iterable[Feeds]) -> dict[str, np.ndarray]:
    run = Interpreter(model_path=str(path)).get_signature_runner()
    made = [run(**{tensor.name: batch[tensor.name] for tensor in source.inputs}) for batch in batches]
    return {name: np.array([each[name] for each in made]) for name in made[0]}


def test_softmaxes_with_unlike_scores_get_masks_of_their_own(tmp_path):
    """Scores of 3 and of 60 hidden by one mask: cut off for the latter, it would leave the former few steps."""
    weights = _normal(np.random.default_rng(0), DIM, DIM) / 2

    def attend(x: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        mask = ((1 - valid) * -10000.0)[:, None, :]
        scores = tf.matmul(tf.matmul(x, weights), x, transpose_b=True)
        made = [tf.matmul(tf.nn.softmax(scores * gain + mask), x) for gain in (0.1, 0.09, 3.0)]
        return made[0] + made[1] + made[2]

    source = written(attend, INPUTS[:2], tmp_path / "x.tflite")
    result, _ = quantized(source, "int8", samples(40, 0), tmp_path / "q.tflite")
    assert result.kept_float == ()
    cut = [change for change in result.ranges if change.why == WHY_MASK and change.before.high > -1]
    assert len({change.after for change in cut}) == 2
    assert (
        off(outputs(tmp_path / "q.tflite", samples(30, 1)), outputs(source.path, samples(30, 1))) < HIDE_ERROR["int8"]
    )


@pytest.mark.parametrize("name", SCHEMES)
def test_a_mask_that_is_given(name, tmp_path):
    source = attention(tmp_path / "x.tflite", lambda s, valid, given: s + given)
    result, some, blind = losses(source, name, tmp_path / "q.tflite")
    assert result.kept_float == ()
    assert max(some, blind) < HIDE_ERROR[name]


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("gain", [0.25, 3.0, 8.0])
def test_rows_hidden_whole_where_a_mask_swallows_a_part_of_the_scores(name, gain, tmp_path):
    """Floats near 1e9 lie 64 apart: scores up to 32 are lost in −1e9, greater ones become multiples of 64."""
    source = attention(tmp_path / "x.tflite", lambda s, valid, given: s + (1 - valid) * -1e9, gain=gain)
    result, some, blind = losses(source, name, tmp_path / "q.tflite")
    assert {kept.reason for kept in result.kept_float} == (set() if gain < 1 else {PARTLY.format(-1e9)})
    assert max(some, blind) < HIDE_ERROR[name]


def test_a_causal_mask_hides_no_row_whole(tmp_path):
    source = attention(tmp_path / "x.tflite", lambda s, valid, given: s + FUTURE * -1e9, gain=8.0)
    result, some, _ = losses(source, "int8", tmp_path / "q.tflite")
    assert result.kept_float == ()
    assert some < HIDE_ERROR["int8"]


UNLIKE = np.random.default_rng(3).normal(size=(TIME, TIME)).astype(np.float32) * 2

SUMS: dict[str, tuple[Mask, int]] = {
    "by a logarithm": (lambda s, valid, given: s + tf.math.log(valid + 1e-30) * 1e3, 3),
    "then scaled": (lambda s, valid, given: (s + tf.math.log(valid + 1e-30) * 1e3) * 0.5, 4),
    "behind a mask that is known": (lambda s, valid, given: (s + FUTURE * -1e4) + tf.math.log(valid + 1e-30) * 1e3, 4),
    "with a bias": (lambda s, valid, given: s + ((1 - valid) * -10000.0 + UNLIKE), 4),
    "then cut off": (lambda s, valid, given: tf.maximum(s + (1 - valid) * -1e9, -10000.0), 4),
}
"""And how many operations stay in float for it: from the large numbers to the softmax; the scores are in integers."""


@pytest.mark.parametrize("name", SCHEMES)
@pytest.mark.parametrize("total", SUMS)
def test_masks_by_means_that_are_not_known_leave_scores_their_steps(name, total, tmp_path):
    mask, count = SUMS[total]
    result, some, blind = losses(attention(tmp_path / "x.tflite", mask), name, tmp_path / "q.tflite")
    assert len([kept for kept in result.kept_float if "no steps would be left" in kept.reason]) == count
    assert max(some, blind) < HIDE_ERROR[name]


@pytest.mark.parametrize("name", SCHEMES)
def test_logarithms_of_what_would_round_to_0(name, tmp_path):
    weights = _normal(np.random.default_rng(0), DIM, DIM)

    def logs(x: tf.Tensor) -> tf.Tensor:
        return tf.math.log(tf.reshape(tf.nn.softmax(tf.matmul(x, weights) / 2) + 1e-3, (1, TIME * DIM)))

    source = written(logs, INPUTS[:1], tmp_path / "x.tflite")
    result, _ = quantized(source, name, samples(40, 0), tmp_path / "q.tflite")
    assert [kept.reason for kept in result.kept_float].count(NO_LOGARITHM) == 2
    batches = [{"x": one["x"]} for one in samples(30, 1)]
    assert off(outputs(tmp_path / "q.tflite", batches), outputs(source.path, batches)) < 0.15


@pytest.mark.parametrize("number", [np.nan, -np.inf])
@pytest.mark.parametrize("place", [1, 2])
def test_weights_and_biases_that_are_no_numbers(place, number, tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "x.tflite"
    weights, bias = _normal(rng, WIDE, MANY), _normal(rng, MANY)
    written(lambda x: tf.matmul(x, weights) + bias, [tf.TensorSpec((1, WIDE), name="x")], path)
    model = litert.read(path)
    index = litert.operations(model)[0].inputs[place]
    values = litert.constant(model, index).copy()
    values.flat[5] = number  # the converter writes 3.4e38 for an infinite one
    model.subgraphs[0].tensors[index].buffer = litert.add_constant(model, values)
    path.write_bytes(litert.pack(model))
    for scheme in schemes_for("tflite").values():
        with pytest.raises(InputError, match="holds nan or infinite"):
            scheme.quantize(inspect(path), {}, Options())


def test_damaged_tables(exported, tmp_path):
    """A bit in each of 150 bytes before and behind the weights: a sentence, or a file that can be read."""
    content, path = exported["tflite"].path.read_bytes(), tmp_path / "x.tflite"
    refused = 0
    for place in np.random.default_rng(0).choice([*range(4000), *range(len(content) - 20_000, len(content))], 150):
        path.write_bytes(content[:place] + bytes([content[place] ^ 64]) + content[place + 1 :])
        try:
            model = litert.read(path)
        except InputError as error:
            refused += "damaged" in str(error)
        else:
            rewrite(model)
    assert refused > 20
