from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.layers import LSTM, Bidirectional, Conv1D, Dense

import formulas
from layers.support import as_numpy, randomize, total
from mh_edge.layers import MultiHead

WINDOWS = [None, slice(0, 2), (slice(None), slice(1, 4)), (slice(None, None, 2), slice(0, 3))]


def penalized(window=None, factor=0.5, **arguments):
    layer = MultiHead(Dense(6, **arguments), 3, reg_index=0, reg_slice=window, reg_factor=factor)
    layer.build((None, 4))
    return layer


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_the_penalty_follows_the_weights(window):
    layer = penalized(window)
    for seed in (1, 2):
        randomize(layer, seed)
        parts = [as_numpy(head.kernel)[... if window is None else window] for head in layer.layers]
        assert total(layer) == pytest.approx(formulas.head_penalty(parts, 0.5), rel=1e-5)


def test_hand_computed_penalty():
    # rows (1, 0) and (1, 1): V Vᵀ − I = [[0, 1], [1, 1]], the squares sum to 3, times .5
    layer = MultiHead(Dense(2, use_bias=False), 2, reg_index=0, reg_factor=0.5)
    layer.build((None, 1))
    layer.set_weights([np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]])])
    assert total(layer) == pytest.approx(1.5)


def test_several_indices_share_or_have_their_own_slice_and_factor():
    template = Bidirectional(LSTM(4))
    layer = MultiHead(template, 3, reg_index=[1, 4], reg_slice=(slice(None), slice(8, 12)), reg_factor=[0.1, 0.2])
    layer.build((None, None, 2))
    randomize(layer)
    recurrent = [[as_numpy(head.weights[index])[:, 8:12] for head in layer.layers] for index in (1, 4)]
    expected = formulas.head_penalty(recurrent[0], 0.1) + formulas.head_penalty(recurrent[1], 0.2)
    assert total(layer) == pytest.approx(expected, rel=1e-5)
    assert layer.layers[0].weights[4] is layer.layers[0].backward_layer.cell.recurrent_kernel


def test_the_penalty_is_counted_once_however_often_the_layer_is_called():
    x = keras.Input((4,))
    layer = MultiHead(Dense(6), 3, reg_index=0, reg_factor=0.5)
    model = keras.Model(x, layer(keras.layers.Concatenate()([layer(x)[..., 0], x])[:, :4]))
    expected = formulas.head_penalty([as_numpy(head.kernel) for head in layer.layers], 0.5)
    for _ in range(3):
        model(np.ones((2, 4), "float32"))
        assert total(model) == pytest.approx(expected, rel=1e-5)
    model.compile(optimizer="sgd", loss=lambda y, p: 0.0 * keras.ops.mean(p))
    assert model.evaluate(np.ones((2, 4)), np.ones((2, 6, 3)), verbose=0) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_adds_to_what_regularizes_the_weight_already():
    layer = penalized(kernel_regularizer=keras.regularizers.L2(0.1))
    kernels = [as_numpy(head.kernel) for head in layer.layers]
    expected = formulas.head_penalty(kernels, 0.5) + 0.1 * sum((kernel**2).sum() for kernel in kernels)
    assert total(layer) == pytest.approx(expected, rel=1e-5)


def test_the_penalty_trains_and_makes_the_heads_orthogonal():
    model = keras.Sequential([keras.Input((4,)), penalized(factor=1.0)])
    layer = model.layers[0]
    randomize(layer)
    with tf.GradientTape() as tape:
        loss = sum(layer.losses)
    kernels = [head.kernel.value for head in layer.layers]
    assert all(np.abs(as_numpy(gradient)).max() > 0.01 for gradient in tape.gradient(loss, kernels))
    before = total(layer)
    model.compile(optimizer=keras.optimizers.Adam(0.05), loss=lambda y, p: 0.0 * keras.ops.mean(p))
    model.fit(np.ones((8, 4)), np.ones((8, 6, 3)), epochs=60, verbose=0)
    rows = np.stack([as_numpy(kernel).ravel() for kernel in kernels])
    assert before > 10
    assert total(layer) < 0.01
    np.testing.assert_allclose(rows @ rows.T, np.eye(3), atol=0.1)


def test_frozen_heads_do_not_silence_the_others():
    layer = penalized()
    expected = total(layer)
    layer.layers[0].trainable = False
    assert total(layer) == pytest.approx(expected, rel=1e-6)
    layer.layers[2].trainable = False
    assert total(layer) == pytest.approx(expected, rel=1e-6)
    layer.layers[1].trainable = False
    assert layer.losses == []


def test_one_layer_twice_shares_its_weights_and_reports_once():
    head = Dense(2, use_bias=False)
    layer = MultiHead([head, head], reg_index=0, reg_factor=1.0)
    layer.build((None, 1))
    head.kernel.assign([[1.0, 0.0]])  # V Vᵀ − I = [[0, 1], [1, 0]]
    assert total(layer) == pytest.approx(2.0)


def test_the_penalty_leaves_nothing_in_an_inference_graph():
    def operations(factor):
        arguments = {} if factor is None else {"reg_index": 0, "reg_factor": factor}
        model = keras.Sequential([keras.Input((4,)), MultiHead(Dense(6), 3, **arguments)])

        @tf.function(autograph=False)
        def infer(x):
            return model.stateless_call([v.value for v in model.trainable_variables], [], x, training=False)[0]

        graph = infer.get_concrete_function(tf.TensorSpec((None, 4))).graph
        return sorted(operation.type for operation in graph.get_operations())

    assert operations(0.5) == operations(None)


def test_stateless_losses_are_of_the_values_given():
    model = keras.Sequential([keras.Input((4,)), penalized()])
    values = [2.0 * value for value in model.trainable_variables]
    _, _, losses = model.stateless_call(values, [], np.ones((1, 4), "float32"), return_losses=True)
    kernels = [2.0 * as_numpy(head.kernel) for head in model.layers[0].layers]
    assert float(sum(losses)) == pytest.approx(formulas.head_penalty(kernels, 0.5), rel=1e-5)


def test_refusals_of_the_penalty_name_the_values():
    with pytest.raises(ValueError, match="reg_index 2 is out of range, head 0 has 2 weights"):
        MultiHead(Dense(2), 2, reg_index=2).build((None, 3))
    with pytest.raises(ValueError, match="reg_slice has 3 entries, reg_index has 2; give one, or as many"):
        MultiHead(Dense(2), 2, reg_index=[0, 1], reg_slice=[None] * 3)
    with pytest.raises(ValueError, match="reg_slice has 2 slices, the weight has shape"):
        MultiHead(Dense(2), 2, reg_index=1, reg_slice=(slice(1), slice(1))).build((None, 3))
    with pytest.raises(ValueError, match=r"reg_slice slice\(9, None, None\) selects nothing of weight 0"):
        MultiHead(Dense(2), 2, reg_index=0, reg_slice=slice(9, None)).build((None, 3))
    with pytest.raises(ValueError, match=r"selects shape \(5, 3, 2\) in head 1, \(3, 3, 2\) in head 0"):
        MultiHead([Conv1D(2, 3), Conv1D(2, 5)], reg_index=0).build((None, 9, 3))
