"""Tracing: which calls are marked, what a mark remembers, and that nothing of it stays on the layers."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import layers

from mh_edge.capture import MARK, Slot, capture, nested_layers, replaced, split_arguments
from mh_edge.program import program
from mh_edge.rules import Case, Rule, RuleSet

CASE = Case("any", object)


def rules(*classes):
    return RuleSet("onnx", {cls: Rule("onnx", cls, lambda: None, (CASE,), lambda layer: None) for cls in classes})


def captured(model, *classes):
    source = program(model)
    return capture(
        source.call,
        source.signature.inputs,
        layers=nested_layers(model),
        variables=source.variables,
        rules=rules(*classes),
    )


def marks(found):
    return [node for node in found.graph.node if node.op == MARK]


def test_each_call_of_a_shared_layer_is_marked():
    a, b = keras.Input((4,)), keras.Input((4,))
    shared = layers.Dense(3, name="shared")
    found = captured(keras.Model([a, b], [shared(a), shared(b)]), layers.Dense)
    assert len(marks(found)) == 2
    assert [call.layer.name for call in found.calls.values()] == ["shared", "shared"]


def test_inside_a_marked_layer_nothing_is_marked():
    x = keras.Input((None, 4))
    found = captured(keras.Model(x, layers.Bidirectional(layers.LSTM(3))(x)), layers.Bidirectional, layers.LSTM)
    assert [call.rule.name for call in found.calls.values()] == ["Bidirectional"]
    assert len(marks(found)) == 1


def test_weights_of_marked_layers_stay_out_of_the_graph():
    x = keras.Input((4,))
    rows = layers.Reshape((1, 3))(layers.Dense(3)(x))
    found = captured(keras.Model(x, layers.Conv1D(2, 1, name="conv")(rows)), layers.Dense)
    assert sorted(weight.path for weight in found.weights.values()) == ["conv/bias", "conv/kernel"]
    assert not [node for node in found.graph.node if node.op in ("VarHandleOp", "ReadVariableOp")]


def test_a_call_remembers_arguments_shapes_and_masks():
    x, state = keras.Input((None, 4)), keras.Input((3,))
    layer = layers.GRU(3, return_state=True)
    mask = keras.ops.any(x > 0, axis=-1)  # Keras hands on no mask of its own beside an initial state
    found = captured(keras.Model([x, state], layer(x, initial_state=[state], mask=mask)), layers.GRU)
    (call,) = found.calls.values()
    inputs, masks = split_arguments(call.arguments)
    shapes = [call.specs[slot.index].shape for slot in inputs]
    assert shapes == [("?", "?", 4), ("?", 3)]
    assert isinstance(masks[0], Slot)
    assert call.specs[masks[0].index].dtype == "bool"
    assert masks[1] is None


def test_one_mask_serves_all_inputs_and_a_list_each_its_own():
    a, b, c, m = (np.zeros(1) for _ in range(4))
    tensors = [keras.ops.convert_to_tensor(value) for value in (a, b, c, m)]
    query, key, value, mask = tensors
    _, one = split_arguments({"inputs": [query, key, value], "mask": mask})
    assert [item is mask for item in one] == [True, True, True]
    _, each = split_arguments({"inputs": [query, key, value], "mask": [None, mask, None]})
    assert [item is mask for item in each] == [False, True, False]
    inputs, none = split_arguments({"inputs": query, "training": False})
    assert (len(inputs), none) == (1, (None,))


def test_calls_are_put_back_also_after_an_error():
    dense = layers.Dense(2)

    def fail(*_):
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"), replaced([dense], rules(layers.Dense), fail):
        dense(np.zeros((1, 3), "float32"))
    assert "call" not in vars(dense)
    assert dense(np.zeros((1, 3), "float32")).shape == (1, 2)


def test_dropout_of_a_recurrent_layer_is_no_state():
    x = keras.Input((None, 4))
    captured(keras.Model(x, layers.LSTM(3, dropout=0.5, recurrent_dropout=0.5)(x)))
