"""Which free lengths of several inputs are one size, and which are free for themselves."""

from __future__ import annotations

import keras
import pytest

from mh_edge.layers import MultiHeadAttention
from mh_edge.program import program


def inputs(*names: str) -> list[keras.KerasTensor]:
    return [keras.Input((None, 4), name=name) for name in names]


def sum_each(*tensors: keras.KerasTensor) -> keras.KerasTensor:
    return keras.layers.Add()([keras.layers.GlobalAveragePooling1D()(tensor) for tensor in tensors])


def attention() -> keras.Model:
    asked = inputs("query", "key", "value")
    return keras.Model(asked, MultiHeadAttention(head_num=2)(asked))


def pairs() -> keras.Model:
    a, b, c, d = inputs("a", "b", "c", "d")
    return keras.Model([a, b, c, d], sum_each(keras.layers.Add()([a, c]), keras.layers.Add()([b, d])))


def apart() -> keras.Model:
    given = inputs("a", "b", "c")
    return keras.Model(given, sum_each(*given))


def together() -> keras.Model:
    given = inputs("a", "b", "c")
    return keras.Model(given, keras.layers.Add()(given))


@pytest.mark.parametrize(
    ("build", "lengths"),
    [
        (attention, ["query_sequence", "key_sequence", "key_sequence"]),
        (pairs, ["a_sequence", "b_sequence", "a_sequence", "b_sequence"]),
        (apart, ["a_sequence", "b_sequence", "c_sequence"]),
        (together, ["sequence", "sequence", "sequence"]),
    ],
)
def test_lengths_are_shared_where_the_model_needs_it(build: object, lengths: list[str]) -> None:
    assert callable(build)
    signature = program(build()).signature
    assert [tensor.shape for tensor in signature.inputs] == [("batch", length, 4) for length in lengths]


def test_the_output_follows_the_length_of_the_query() -> None:
    (found,) = program(attention()).signature.outputs
    assert found.shape == ("batch", "query_sequence", 4)


def test_two_images_of_free_size_are_free_for_themselves() -> None:
    one, two = (keras.Input((None, None, 3), name=name) for name in ("one", "two"))
    pooled = keras.layers.Add()([keras.layers.GlobalMaxPooling2D()(image) for image in (one, two)])
    signature = program(keras.Model([one, two], pooled)).signature
    assert [tensor.shape for tensor in signature.inputs] == [
        ("batch", "one_height", "one_width", 3),
        ("batch", "two_height", "two_width", 3),
    ]
