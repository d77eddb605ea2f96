"""Attention is one partition of XNNPACK: what stays on the CPU, masks before all, comes before the first product."""

from __future__ import annotations

import keras
import pytest
from ai_edge_litert.interpreter import Interpreter

from mh_edge.layers import MultiHeadAttention, ScaledDotProductAttention, SeqSelfAttention, SeqWeightedAttention
from to_tflite.conversion import convert

layers = keras.layers
STEPS, WIDTH = 7, 8

LAYERS = {
    "ours": lambda x: MultiHeadAttention(2, history_only=True)(x),
    "one_head": lambda x: ScaledDotProductAttention(history_only=True)(x),
    "additive": lambda x: SeqSelfAttention(4, attention_width=3)(x),
    "multiplicative": lambda x: SeqSelfAttention(attention_type="multiplicative", history_only=True)(x),
    "weighted": lambda x: SeqWeightedAttention()(x),
    "multi_head": lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True),
    "grouped": lambda x: layers.GroupQueryAttention(4, 4, 2)(x, x, use_causal_mask=True),
    "attention": lambda x: layers.Attention()([x, x], use_causal_mask=True),
    "additive_attention": lambda x: layers.AdditiveAttention()([x, x], use_causal_mask=True),
}

APART_WHEN_FREE = {"additive", "additive_attention"}
"""Dropping the last axis of their scores asks for two free lengths, which XNNPACK does not take."""


def partitions(path):
    interpreter = Interpreter(str(path))
    for described in interpreter.get_input_details():
        interpreter.resize_tensor_input(described["index"], [1, STEPS, WIDTH][: len(described["shape"])])
    interpreter.allocate_tensors()
    # The interpreter has no public list of its operations.
    return [operation["op_name"] for operation in interpreter._get_ops_details()].count("DELEGATE")


@pytest.mark.parametrize("steps", [STEPS, None], ids=["fixed", "free"])
@pytest.mark.parametrize("name", LAYERS)
def test_masked_attention_is_one_partition(name, steps, tmp_path):
    x = keras.Input((steps, WIDTH), name="x")
    model = keras.Model(x, LAYERS[name](layers.Masking()(x)))
    _, path = convert(model, tmp_path / "model.tflite")
    assert partitions(path) == (2 if steps is None and name in APART_WHEN_FREE else 1)


@pytest.mark.parametrize("steps", [STEPS, None], ids=["fixed", "free"])
def test_with_a_mask_that_is_an_input(steps, tmp_path):
    x, valid = keras.Input((steps, WIDTH), name="x"), keras.Input((steps,), dtype="bool", name="valid")
    model = keras.Model([x, valid], MultiHeadAttention(2)([x, x, x], mask=[None, valid, None]))
    _, path = convert(model, tmp_path / "model.tflite")
    assert partitions(path) == 1
