"""Files that Keras 2 (tf-keras) wrote, among them those of keras-multi-head 0.29: opened as Keras 3 models.

The layout is described in `weights`, the architecture's dialect in `config`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import keras

from mh_edge.errors import InputError
from mh_edge.legacy import weights
from mh_edge.legacy.config import Reader

SAVE_AGAIN = "Save the model again where it was trained."


def model_config(file: Any, source: str) -> dict[str, Any]:
    """The architecture in an open `.h5` file. Raises InputError when there is none or it is not JSON."""
    text = file.attrs.get("model_config")
    if text is None:
        raise InputError(
            f"{source} holds weights and no architecture.",
            "Build the model in Python, then mh_edge.load_weights(model, file) and model.save('model.keras').",
        )
    try:
        config = json.loads(text)
    except ValueError as error:
        raise InputError(f"{source} is damaged: its architecture is not JSON ({error}).", SAVE_AGAIN) from error
    if not isinstance(config, dict):
        raise InputError(f"{source} is damaged: its architecture is a {type(config).__name__}.", SAVE_AGAIN)
    return config


def is_keras_2(file: Any) -> bool:
    """Whether Keras 2, or a Keras so old that it did not say, wrote the whole model in this open `.h5` file."""
    return not str(file.attrs.get("keras_version", "2")).startswith("3.")


def load_model(file: Any, source: str, *, custom_objects: Mapping[str, Any], unsafe: bool = False) -> Any:
    """The Keras 3 model in an open `.h5` file written by Keras 2, with its weights, not compiled.

    custom_objects: classes and functions by the names the file gives them. unsafe: run the code of Lambda layers.
    Raises InputError for what is missing, damaged, unknown or does not fit, and whatever Keras raises for a config.
    """
    config = Reader(source, custom_objects).model(model_config(file, source))
    if "model_weights" not in file:
        raise InputError(
            f"{source} holds an architecture without weights.",
            "Save it with model.save('model.h5') where it was trained, or build it and use mh_edge.load_weights.",
        )
    model = keras.saving.deserialize_keras_object(config, custom_objects=dict(custom_objects), safe_mode=not unsafe)
    if not model.built:
        raise InputError(
            f"{source}: the model was saved before it was built, so the shape of its input is not known.",
            "Build it in Python with an input shape, then mh_edge.load_weights(model, file).",
        )
    weights.load(model, file["model_weights"], source)
    return model


def load_weights(model: Any, file: Any, source: str) -> None:
    """Put the weights of an open Keras-2 file, whole model or weights only, into a built model."""
    weights.load(model, file.get("model_weights", file), source)


def holds_weights(file: Any) -> bool:
    """Whether this open `.h5` file has the Keras-2 layout of weights (at its root, or in a whole model)."""
    group = file.get("model_weights", file)
    return "layer_names" in group.attrs or "layer_names0" in group.attrs
