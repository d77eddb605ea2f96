"""The models of the kit that is proven."""

from __future__ import annotations

from mh_edge.quiet import quiet

with quiet():
    import keras

    from mh_edge.layers import MultiHead, MultiHeadAttention

BIAS = (0.25, -1.5, 0.75, 2.0)
"""Of the last layer of `lstm_heads`: to be found in the bytes of a file."""


def attention() -> keras.Model:
    """(batch, steps, 6), zeros are masked -> (batch, 4)."""
    rows = keras.Input((None, 6), name="rows")
    seen = MultiHeadAttention(head_num=2, activation="tanh")(keras.layers.Masking()(rows))
    return keras.Model(rows, keras.layers.Dense(4)(keras.layers.GlobalMaxPooling1D()(seen)), name="attention")


def lstm_heads() -> keras.Model:
    """(batch, steps, 6), zeros are masked -> (batch, 4)."""
    rows = keras.Input((None, 6), name="rows")
    heads = MultiHead(keras.layers.LSTM(8), layer_num=3)(keras.layers.Masking()(rows))
    last = keras.layers.Dense(4, name="last")
    model = keras.Model(rows, last(keras.layers.Flatten()(heads)), name="lstm_heads")
    last.bias.assign(BIAS)
    return model


def stream() -> keras.Model:
    """(batch, steps, 3) -> (batch, steps, 5)."""
    x = keras.Input((None, 3), name="x")
    return keras.Model(x, keras.layers.LSTM(5, return_sequences=True, name="lstm")(x), name="stream")


def convolution() -> keras.Model:
    """(1, 12, 6) -> (1, 4)."""
    x = keras.Input((12, 6), batch_size=1, name="x")
    seen = keras.layers.Conv1D(8, 3, padding="same", activation="relu")(x)
    seen = keras.layers.Dense(8, activation="relu")(seen)
    return keras.Model(x, keras.layers.Dense(4)(keras.layers.GlobalAveragePooling1D()(seen)), name="convolution")
