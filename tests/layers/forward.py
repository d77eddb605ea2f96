"""Run every layer on fixed numbers under the backend of Keras, and save the outputs: `python forward.py OUT.npz`."""

from __future__ import annotations

import sys

import keras
import numpy as np

from mh_edge import layers


def outputs() -> dict[str, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((3, 5, 4)).astype("float32")
    other = np.random.default_rng(1).standard_normal((3, 6, 4)).astype("float32")
    mask = np.array([[1, 1, 1, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]], bool)
    three, three_masks = [other, x, x], [None, mask, None]
    cases = {
        "attention": (layers.MultiHeadAttention(2, history_only=True), x, mask),
        "attention of three": (layers.MultiHeadAttention(2, activation="tanh"), three, three_masks),
        "scaled dot product": (layers.ScaledDotProductAttention(history_only=True), three, three_masks),
        "additive": (layers.SeqSelfAttention(3, 3, history_only=True), x, mask),
        "multiplicative": (layers.SeqSelfAttention(attention_type="multiplicative"), x, mask),
        "weighted": (layers.SeqWeightedAttention(), x, mask),
        "heads": (layers.MultiHead(keras.layers.LSTM(3), 2, hidden_dim=5, reg_index=0, reg_factor=0.5), x, mask),
        "different heads": (
            layers.MultiHead([keras.layers.Conv1D(3, size, padding="same") for size in (1, 3)]),
            x,
            None,
        ),
    }
    found = {}
    for name, (layer, inputs, masks) in cases.items():
        layer.build([part.shape for part in inputs] if isinstance(inputs, list) else inputs.shape)
        source = np.random.default_rng(2)
        for weight in layer.weights:
            weight.assign(0.5 * source.standard_normal(weight.shape))
        found[name] = keras.ops.convert_to_numpy(layer(inputs, mask=masks) if masks is not None else layer(inputs))
        if layer.losses:
            found[f"losses of {name}"] = np.array(sum(float(loss) for loss in layer.losses))
        symbolic = layer(
            [keras.Input((None, 4)) for _ in inputs] if isinstance(inputs, list) else keras.Input((None, 4))
        )
        if len(symbolic.shape) != found[name].ndim:
            raise RuntimeError(f"{name}: symbolic {symbolic.shape}, real {found[name].shape}")
    return found


if __name__ == "__main__":
    np.savez(sys.argv[1], **outputs())
