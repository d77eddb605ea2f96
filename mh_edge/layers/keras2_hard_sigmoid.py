"""Activations whose name means something else in Keras 3."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="mh_edge")  # type: ignore[untyped-decorator]
def keras2_hard_sigmoid(x: Any) -> Any:
    """clip(0.2 x + 0.5, 0, 1) of x of any shape: `hard_sigmoid` of Keras 2, a default of LSTM before TensorFlow 2.

    Keras 3's function of that name is clip(x / 6 + 0.5, 0, 1), up to 0.083 away.
    Source: tf-keras 2.21, `backend.hard_sigmoid`.
    """
    return ops.clip(0.2 * x + 0.5, 0.0, 1.0)
