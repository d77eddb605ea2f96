from __future__ import annotations

import keras
import numpy as np
import pytest

import formulas
from layers.support import (
    EXACT,
    MASK_KINDS,
    as_numpy,
    assert_same_predictions,
    gradients,
    loss_before_and_after,
    mask_of,
    named,
    randomize,
    reloaded,
    rng,
)
from mh_edge.layers import SeqWeightedAttention


def test_hand_computed():
    # W = (1, −1), b = 1: scores of (2, 0), (0, 1), (1, 1) are 3, 0, 1; the third is masked.
    # exp(0, −3) = (1, .0497871), sum 1.0497871: a = (.9525741, .0474259, 0), y = (1.9051482, .0474259)
    layer = SeqWeightedAttention(return_attention=True)
    layer.build((None, 3, 2))
    layer.set_weights([np.array([[1.0], [-1.0]]), np.array([1.0])])
    x = np.array([[[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]]], dtype="float32")
    y, a = layer(x, mask=np.array([[True, True, False]]))
    np.testing.assert_allclose(as_numpy(a), [[0.9525741, 0.0474259, 0.0]], atol=1e-6)
    np.testing.assert_allclose(as_numpy(y), [[1.9051482, 0.0474259]], atol=1e-6)


def test_the_sum_carries_epsilon():
    # One step: a = 1 / (1 + 1e-7), visible in float64 only.
    layer = SeqWeightedAttention(return_attention=True, dtype="float64")
    _, a = layer(np.ones((1, 1, 2)))
    assert 1.0 - as_numpy(a)[0, 0] == pytest.approx(1e-7, rel=1e-6)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("use_bias", [True, False])
def test_against_the_formulas(kind, use_bias):
    x, mask = rng().standard_normal((4, 5, 3)), mask_of(kind, 4, 5)
    layer = SeqWeightedAttention(use_bias=use_bias, return_attention=True, dtype="float64")
    layer.build(x.shape)
    randomize(layer)
    expected, expected_attention = formulas.seq_weighted_attention(x, named(layer), mask)
    output, attention = layer(x, mask=mask)
    np.testing.assert_allclose(as_numpy(output), expected, **EXACT)
    np.testing.assert_allclose(as_numpy(attention), expected_attention, **EXACT)
    assert [weight.name for weight in layer.weights] == (["W", "b"] if use_bias else ["W"])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_narrow_policies(policy):
    x, mask = rng().standard_normal((3, 5, 4)), mask_of("row", 3, 5)
    layer = SeqWeightedAttention(dtype=policy)
    layer.build(x.shape)
    randomize(layer)
    output = layer(x, mask=mask)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype
    expected, _ = formulas.seq_weighted_attention(x, named(layer), mask)
    np.testing.assert_allclose(as_numpy(output).astype("float64"), expected, atol=0.03)


def test_shapes_mask_config_and_file(tmp_path):
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    y, a = SeqWeightedAttention(return_attention=True, use_bias=False, name="attention")(x)
    assert (y.shape, a.shape) == ((None, 4), (None, None))
    assert SeqWeightedAttention().compute_mask(None, np.ones((1, 2))) is None
    model = keras.Model(ids, [y, a])
    randomize(model)
    loaded = reloaded(model, tmp_path)
    assert loaded.get_layer("attention").get_config() == model.get_layer("attention").get_config()
    inputs = np.array([[1, 2, 0], [0, 0, 4]])
    assert_same_predictions(model, loaded, inputs)
    table = as_numpy(model.layers[1].embeddings)[inputs]
    expected, _ = formulas.seq_weighted_attention(table, named(model.get_layer("attention")), inputs != 0)
    np.testing.assert_allclose(as_numpy(model(inputs)[0]), expected, atol=1e-5)


def test_gradients_and_training():
    x = rng().standard_normal((16, 5, 3)).astype("float32")
    layer = SeqWeightedAttention()
    layer.build(x.shape)
    randomize(layer)
    kernel, bias = gradients(layer, x)
    assert np.abs(kernel).max() > 0.01
    assert np.abs(bias).max() < 1e-4  # a shift of all scores changes a softmax by epsilon at most
    model = keras.Sequential([keras.Input((None, 3)), SeqWeightedAttention()])
    largest = x[np.arange(16), x[:, :, 0].argmax(axis=1)]  # attending to the largest first feature is learnable
    before, after = loss_before_and_after(model, x, largest, epochs=60)
    assert after < 0.5 * before


def test_refusal_names_the_shape():
    with pytest.raises(ValueError, match=r"the input has shape \(None, 3\); it must be \(batch, time, dim\)"):
        SeqWeightedAttention().build((None, 3))
