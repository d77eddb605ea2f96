"""Clones of a Keras model in another precision: the float64 truth of verification, the float32 form of a
mixed-precision model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from mh_edge.errors import InputError

FLOATS = ("float16", "bfloat16", "float32", "float64")
MIXED = ("mixed_float16", "mixed_bfloat16")
POLICY_CLASS = "DTypePolicy"


@contextmanager
def computing(dtype: str) -> Iterator[None]:
    """Within it Keras takes `dtype` wherever a layer says nothing: for new layers, and for results of integers and
    Python numbers.
    """
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx(dtype)
    keras.config.set_dtype_policy(dtype)
    try:
        yield
    finally:
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(policy)


def is_float32(model: keras.Model) -> bool:
    """Whether every layer that computes in floats does so in float32 and keeps float32 weights."""
    others = {*FLOATS, *MIXED} - {"float32"}
    return not any(layer.dtype_policy.name in others for layer in model._flatten_layers())


def with_policy(model: keras.Model, dtype: str) -> keras.Model:
    """A clone of the model, through its config, in which every float dtype is `dtype`; weights are copied, shared
    layers stay shared.

    dtype: "float32" or "float64". Weights that are float32 in the model are the same numbers in a float64 clone.
    Raises InputError with the reason when the model cannot be rebuilt from its config: quantized layers, a subclassed
    model without `get_config`, custom code that its config does not describe.
    """
    why = f"the model {model.name!r} ({type(model).__name__}) cannot be cloned in {dtype}"
    for layer in model._flatten_layers():
        if layer.quantization_mode is not None:
            raise InputError(
                f"{why}: layer {layer.name!r} is quantized ({layer.quantization_mode}).", "Give the float model."
            )
    try:
        with computing(dtype), keras.saving.custom_object_scope(_custom_objects(model)):
            config = _replaced(keras.saving.serialize_keras_object(model), dtype)
            # The config comes from a live model of this very process, so a Lambda in it brings in no foreign code.
            clone = keras.saving.deserialize_keras_object(config, safe_mode=False)
    except (ValueError, TypeError, NotImplementedError, AttributeError, KeyError, IndexError, RuntimeError) as error:
        raise InputError(
            f"{why}: {_sentence(error)}", "Give its classes a get_config() that returns every argument."
        ) from error
    _copy_weights(model, clone, why)
    return clone


def _copy_weights(model: keras.Model, clone: keras.Model, why: str) -> None:
    source, target = model.weights, clone.weights
    if [tuple(variable.shape) for variable in source] != [tuple(variable.shape) for variable in target]:
        raise InputError(
            f"{why}: rebuilt from its config it has {len(target)} weights instead of {len(source)}, or other shapes.",
            "Create every weight in build() or __init__(), and return every argument from get_config().",
        )
    for variable, copy in zip(source, target, strict=True):
        copy.assign(keras.ops.cast(variable.value, copy.dtype))


def _custom_objects(model: keras.Model) -> dict[str, Any]:
    """The model's own classes and functions by the name its config calls them, so that local and unregistered ones are
    found.
    """
    found: dict[str, Any] = {}
    for layer in model._flatten_layers():
        for item in (type(layer), *filter(inspect.isfunction, vars(layer).values())):
            if not item.__module__.startswith("keras."):
                found[keras.saving.get_registered_name(item)] = item
    return found


def _replaced(config: Any, dtype: str) -> Any:
    """The config with every float dtype and every dtype policy replaced; integer dtypes stay."""
    if isinstance(config, Mapping):
        if config.get("class_name") == POLICY_CLASS:
            return {**config, "config": {**config["config"], "name": dtype}}
        return {key: dtype if _is_float(key, value) else _replaced(value, dtype) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(_replaced(item, dtype) for item in config)
    return config


def _is_float(key: Any, value: Any) -> bool:
    return isinstance(key, str) and key.endswith("dtype") and isinstance(value, str) and value in FLOATS + MIXED


def _sentence(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
