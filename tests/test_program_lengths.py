"""Which free lengths of several inputs are one size, and which are free for themselves."""

from __future__ import annotations

import keras
import pytest

from mh_edge.errors import InputError
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


@pytest.mark.parametrize("dtype", ["bool", "int32", "float32"])
@pytest.mark.parametrize("rows", [None, 1])
def test_a_mask_is_as_wide_as_the_key_is_long(dtype: str, rows: int | None) -> None:
    query, value = keras.Input((None, 4), name="query"), keras.Input((None, 6), name="value")
    mask = keras.Input(batch_shape=(rows, None, None), dtype=dtype, name="mask")
    attended = keras.layers.MultiHeadAttention(2, 4)(query, value, attention_mask=mask)
    signature = program(keras.Model([query, value, mask], attended)).signature
    assert [tensor.shape for tensor in signature.inputs] == [
        ("batch", "query_sequence", 4),
        ("batch", "value_sequence", 6),
        (rows or "batch", "query_sequence", "value_sequence"),
    ]
    assert signature.outputs[0].shape == ("batch", "query_sequence", 4)
    itself = keras.layers.MultiHeadAttention(2, 4)(query, query, attention_mask=mask)
    signature = program(keras.Model([query, mask], itself)).signature
    assert [tensor.shape[1:] for tensor in signature.inputs] == [("sequence", 4), ("sequence", "sequence")]


def test_lengths_that_no_sharing_fits_are_refused_with_the_words_of_keras() -> None:
    """The last sharing tried, one size for all, runs at the first of two sizes: its outputs are no reason."""

    class Seven(keras.layers.Layer):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            if x.shape[1] not in (None, 7):
                raise ValueError(f"{x.shape[1]} steps are not seven")
            return x

    x = keras.Input((None, 4), name="x")
    with pytest.raises(InputError, match=r"shapes: .*11 steps are not seven"):
        program(keras.Model(x, Seven()(x)))


def test_two_images_of_free_size_are_free_for_themselves() -> None:
    one, two = (keras.Input((None, None, 3), name=name) for name in ("one", "two"))
    pooled = keras.layers.Add()([keras.layers.GlobalMaxPooling2D()(image) for image in (one, two)])
    signature = program(keras.Model([one, two], pooled)).signature
    assert [tensor.shape for tensor in signature.inputs] == [
        ("batch", "one_height", "one_width", 3),
        ("batch", "two_height", "two_width", 3),
    ]
