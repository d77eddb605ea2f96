from __future__ import annotations

import pytest

from mh_edge.wording import said


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("width 3", "width 3"),
        ("\n\n  first\nsecond", "first"),
        ("", "ValueError"),
        (
            "Exception encountered when calling A.call().\n\n\x1b[1mheads differ\nmore\x1b[0m\n\nArguments: x",
            "heads differ",
        ),
    ],
)
def test_the_sentence_in_a_message(message: str, sentence: str) -> None:
    assert said(ValueError(message)) == sentence


def test_what_keras_wraps_around_a_layer_is_gone() -> None:
    keras = pytest.importorskip("keras")

    class Refusing(keras.layers.Layer):
        def call(self, x: object) -> object:
            raise ValueError("no such width: 3")

    outer = keras.Sequential([keras.Sequential([Refusing()])])
    with pytest.raises(ValueError, match="Exception encountered") as caught:
        outer(keras.ops.ones((1, 3)))
    assert said(caught.value) == "no such width: 3"
