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
    mask_of,
    reloaded,
    rng,
)
from mh_edge.layers import ScaledDotProductAttention


def test_hand_computed():
    # q = (2, 0), keys (1, 0) and (0, 1): e = (2, 0) / √2 = (1.4142136, 0), a = (4.1132503, 1) / 5.1132503
    # = (.8044298, .1955702); values 10 and 20: y = 8.044298 + 3.911404 = 11.955702
    layer = ScaledDotProductAttention(return_attention=True)
    query, key, value = [[[2.0, 0.0]]], [[[1.0, 0.0], [0.0, 1.0]]], [[[10.0], [20.0]]]
    y, a = layer([np.array(x, dtype="float32") for x in (query, key, value)])
    np.testing.assert_allclose(as_numpy(a), [[[0.8044298, 0.1955702]]], atol=1e-6)
    np.testing.assert_allclose(as_numpy(y), [[[11.955702]]], atol=1e-5)


@pytest.mark.parametrize("kind", MASK_KINDS)
@pytest.mark.parametrize("history_only", [False, True])
@pytest.mark.parametrize("lengths", [(6, 4), (3, 5), (4, 4)])
def test_against_the_formulas(kind, history_only, lengths):
    source = rng(4)
    query = source.standard_normal((3, lengths[0], 4))
    key, value = source.standard_normal((3, lengths[1], 4)), source.standard_normal((3, lengths[1], 2))
    mask = mask_of(kind, 3, lengths[1])
    layer = ScaledDotProductAttention(return_attention=True, history_only=history_only, dtype="float64")
    output, attention = layer([query, key, value], mask=None if mask is None else [None, mask, None])
    expected, expected_attention = formulas.scaled_dot_product_attention(query, key, value, mask, history_only)
    np.testing.assert_allclose(as_numpy(output), expected, **EXACT)
    np.testing.assert_allclose(as_numpy(attention), expected_attention, **EXACT)
    alone = ScaledDotProductAttention(history_only=history_only, dtype="float64")([query, key, value], mask=mask)
    np.testing.assert_array_equal(as_numpy(alone), as_numpy(output))


def test_one_tensor_is_query_key_and_value():
    x, mask = rng().standard_normal((2, 4, 3)), mask_of("right", 2, 4)
    output = ScaledDotProductAttention(dtype="float64")(x, mask=mask)
    np.testing.assert_allclose(as_numpy(output), formulas.scaled_dot_product_attention(x, x, x, mask)[0], **EXACT)


def test_a_fully_masked_row_in_float16_is_the_softmax_of_its_raw_scores():
    # e = (1, 4) / 1: a = (1, 20.0855) / 21.0855 = (.0474259, .9525741); at −10000 float16 could not tell 1 from 4
    query, key = np.array([[[1.0]]], "float16"), np.array([[[1.0], [4.0]]], "float16")
    layer = ScaledDotProductAttention(return_attention=True, dtype="float16")
    y, a = layer([query, key, key], mask=[None, np.array([[False, False]]), None])
    np.testing.assert_allclose(as_numpy(a)[0, 0], [0.0474259, 0.9525741], atol=2e-3)
    assert as_numpy(y).dtype == np.float16


def test_shapes_masks_config_and_file(tmp_path):
    ids = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(5, 4, mask_zero=True)(ids)
    y, a = ScaledDotProductAttention(return_attention=True, history_only=True, name="attention")(x)
    assert (y.shape, a.shape) == ((None, None, 4), (None, None, None))
    model = keras.Model(ids, [keras.layers.GlobalAveragePooling1D()(y), a])
    loaded = reloaded(model, tmp_path)
    assert loaded.get_layer("attention").get_config() == model.get_layer("attention").get_config()
    inputs = np.array([[1, 2, 0], [3, 0, 0]])
    assert_same_predictions(model, loaded, inputs)
    table = as_numpy(model.layers[1].embeddings)[inputs]
    expected, _ = formulas.scaled_dot_product_attention(table, table, table, inputs != 0, history_only=True)
    mean = as_numpy(model(inputs)[0])
    np.testing.assert_allclose(mean[0], expected[0, :2].mean(axis=0), atol=1e-5)


def test_refusals_name_the_numbers():
    layer = ScaledDotProductAttention()
    with pytest.raises(ValueError, match="query is 3 wide, key is 4; their product needs equal widths"):
        layer([keras.Input((2, 3)), keras.Input((2, 4)), keras.Input((2, 4))])
    with pytest.raises(ValueError, match="got 4 inputs"):
        ScaledDotProductAttention().build([(None, 2, 3)] * 4)
