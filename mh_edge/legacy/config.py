"""Keras-2 architectures said in Keras 3: one nested config in, the same model's config out.

What differs, and is changed here: where a class comes from (`module`, `registered_name`; the reference's layers become
ours), arguments that Keras 3 no longer takes, how nodes name their tensors and count the calls of nested models, the
shape an input layer carries, Lambda functions, and `hard_sigmoid`, which Keras 3 defines with another slope.
Source: configs written by tf-keras 2.21 and Keras 2.12, and what keras 3.15 reads.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras

from mh_edge import layers
from mh_edge.errors import InputError
from mh_edge.layers.keras2_hard_sigmoid import keras2_hard_sigmoid

Config = dict[str, Any]

OURS = {name: getattr(layers, name) for name in layers.__all__}
MODELS = {"Functional": keras.Model, "Model": keras.Model, "Sequential": keras.Sequential}
RAW_OPERATIONS = {"TFOpLambda", "TensorFlowOpLayer", "SlicingOpLambda", "ClassMethod", "InstanceMethod"}

LAYER_KEYS = frozenset({"layers", "layer", "forward_layer", "backward_layer", "cell", "cells"})
"""Where a config holds another layer; under other keys the same class name may mean an initializer (`Identity`)."""

FORGOTTEN = frozenset(
    {
        *("batch_input_shape", "input_shape", "input_length", "query_shape", "key_shape", "value_shape"),
        *("implementation", "fused", "renorm_clipping", "renorm_momentum"),
        *("kernel_initializer", "kernel_regularizer", "kernel_constraint"),
    }
)
"""Arguments that Keras 3 dropped and that never change what a layer computes (a shape is kept in an input layer)."""


@dataclass(frozen=True)
class Reader:
    """Rewrites the configs of one file.

    source: the file's name, for messages. custom_objects: classes and functions by the names that configs give them.
    """

    source: str
    custom_objects: Mapping[str, Any]

    def model(self, config: Config) -> Config:
        """A whole architecture, the `model_config` of an old file. Raises InputError for what Keras 3 does not have."""
        try:
            return self.layer(config)
        except (KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"{self.source}: the architecture is not one that Keras 2 writes ({type(error).__name__}: {error}).",
                "Load it with the TensorFlow that wrote it and save it again as .h5.",
            ) from error

    def layer(self, config: Config) -> Config:
        """One layer (or nested model): {class_name, config, ...} -> the same with Keras 3's module and arguments."""
        written = config["class_name"]
        inner = config["config"]
        if written == "Sequential" and isinstance(inner, list):  # before Keras 2.2.3
            inner = {"name": "sequential", "layers": inner}
        layer_class = self._layer_class(written, inner)
        if layer_class is keras.Sequential:
            inner = self._sequential(inner)
        elif layer_class is keras.Model:
            inner = self._functional(inner)
        elif layer_class is keras.layers.Lambda:
            inner = _lambda(inner)
        else:
            inner = self._arguments(layer_class, inner)
        module = "keras" if written in MODELS else _module(layer_class)
        registered = keras.saving.get_registered_name(layer_class)
        return {
            "module": module,
            "class_name": layer_class.__name__,
            "config": inner,
            "registered_name": None if module.startswith("keras") else registered,
        }

    def _layer_class(self, written: str, inner: Config) -> Any:
        if written in MODELS and "layers" in inner:
            return MODELS[written]
        for name in (written, written.rsplit(">", 1)[-1]):
            if name in OURS and not (name == "MultiHeadAttention" and "num_heads" in inner):
                return OURS[name]
            known = self.custom_objects.get(name) or keras.saving.get_registered_object(name)
            if inspect.isclass(known):
                return known
            builtin = vars(keras.layers).get(name)
            if inspect.isclass(builtin):
                return builtin
        raise self._unknown(written)

    def _unknown(self, written: str) -> InputError:
        if written in RAW_OPERATIONS:
            return InputError(
                f"{self.source} holds a {written}: a raw TensorFlow operation as a layer, which Keras 3 does not have.",
                "Build the model in Keras 3 with a layer in its place, then mh_edge.load_weights(model, file).",
            )
        return InputError(
            f"{self.source} holds the layer {written}, which is neither Keras 3's nor this package's.",
            "Import the module that defines it: --import package.module (custom_modules=[...] in Python).",
        )

    def _arguments(self, layer_class: Any, config: Config) -> Config:
        """The constructor's arguments: what Keras 3 takes or should refuse, nested layers rewritten."""
        said = {key: value for key, value in config.items() if not _says_nothing(layer_class, key, value)}
        kept = {key: self._value(key, value) for key, value in said.items()}
        if layer_class is keras.layers.InputLayer and "batch_input_shape" in config:
            kept["batch_shape"] = config["batch_input_shape"]
        if layer_class is keras.layers.LeakyReLU and "alpha" in kept:
            kept["negative_slope"] = kept.pop("alpha")
        if layer_class is keras.layers.GRU:
            kept.setdefault("reset_after", False)  # Keras before 2.1.3 did not write it and had no other form
        return kept

    def _value(self, key: str, value: Any) -> Any:
        if key == "axis" and isinstance(value, list) and len(value) == 1:
            return value[0]
        if value == "hard_sigmoid":
            return keras.activations.serialize(keras2_hard_sigmoid)
        if isinstance(value, list) and key in LAYER_KEYS:
            return [self._value(key, one) for one in value]
        if not isinstance(value, dict) or "class_name" not in value:
            return value
        if key in LAYER_KEYS or (key == "activation" and value["class_name"] in vars(keras.layers)):
            return self.layer(value)
        if key == "dtype":  # a Policy object; its name says it all
            return value["config"]["name"]
        return value

    def _sequential(self, config: Config) -> Config:
        written = config["layers"]
        rewritten = [self.layer(layer) for layer in written]
        first = written[0] if written else None
        shape = first and first["config"].get("batch_input_shape") if isinstance(first, dict) else None
        if first and shape and first["class_name"] != "InputLayer":
            # before tf-keras wrote input layers, the first layer carried their shape
            about = {"batch_shape": shape, "name": f"{first['config']['name']}_input"}
            about |= {"dtype": first["config"]["dtype"]} if isinstance(first["config"].get("dtype"), str) else {}
            rewritten.insert(0, {"module": "keras.layers", "class_name": "InputLayer", "config": about})
        return {"name": config["name"], "layers": rewritten, "build_input_shape": config.get("build_input_shape")}

    def _functional(self, config: Config) -> Config:
        classes = {layer["name"]: layer["class_name"] for layer in config["layers"]}
        graph = [
            {
                **self.layer(layer),
                "name": layer["name"],
                "inbound_nodes": [_node(node, classes) for node in layer["inbound_nodes"]],
            }
            for layer in config["layers"]
        ]
        return {
            "name": config["name"],
            "trainable": config.get("trainable", True),
            "layers": graph,
            "input_layers": _ends(config["input_layers"], classes),
            "output_layers": _ends(config["output_layers"], classes),
        }


def _node(node: Any, classes: Mapping[str, str]) -> Config:
    """One call of a layer: Keras 2's [[layer, node, tensor, kwargs], ...] -> Keras 3's {args, kwargs}."""
    if isinstance(node, dict) and "args" in node:
        return node
    kwargs: Config = {}
    if isinstance(node, list) and node and not _is_tensor(node):
        kwargs = next((leaf[3] for leaf in reversed(node) if _is_tensor(leaf) and len(leaf) == 4 and leaf[3]), {})
        node = node[0] if len(node) == 1 else node
    given = {key: _tensors(value, classes) for key, value in kwargs.items() if value is not None}
    return {"args": [_tensors(node, classes)], "kwargs": given}


def _is_tensor(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) in (3, 4)
        and isinstance(value[0], str)
        and all(isinstance(index, int) for index in value[1:2])
    )


def _tensors(value: Any, classes: Mapping[str, str]) -> Any:
    if _is_tensor(value):
        name, node, tensor = value[:3]
        if name == "_CONSTANT_VALUE":
            return tensor
        # Keras 2 counted the making of a nested model as its first call, Keras 3 does not
        history = [name, node - (classes.get(name) in MODELS), tensor]
        # shape and dtype are replaced by those of the tensor named, but must be there
        return {"class_name": "__keras_tensor__", "config": {"shape": [], "dtype": "float32", "keras_history": history}}
    if isinstance(value, list):
        return [_tensors(one, classes) for one in value]
    if isinstance(value, dict):
        return {key: _tensors(one, classes) for key, one in value.items()}
    return value


def _ends(value: Any, classes: Mapping[str, str]) -> Any:
    """The inputs or outputs of a functional model; a list of one is that one, as it was in Keras 2."""
    if _is_tensor(value):
        # here Keras 3 kept Keras 2's count for functional models, but not for sequential ones
        return [value[0], value[1] - (classes.get(value[0]) == "Sequential"), value[2]]
    if isinstance(value, dict):
        return {key: _ends(one, classes) for key, one in value.items()}
    return _ends(value[0], classes) if len(value) == 1 else [_ends(one, classes) for one in value]


def _lambda(config: Config) -> Config:
    """Keras 2's [code, defaults, closure] of a Lambda -> Keras 3's {class_name: __lambda__}; a name stays a name."""
    kept = {key: value for key, value in config.items() if key in _parameters(keras.layers.Lambda)}
    if isinstance(kept["function"], list):
        code, defaults, closure = kept["function"]
        inner = {"code": code, "defaults": defaults, "closure": closure}
        kept["function"] = {"class_name": "__lambda__", "config": inner}
    if config.get("output_shape_type", "raw") != "raw" or kept.get("output_shape") is None:
        kept.pop("output_shape", None)
    kept.pop("mask", None)
    return kept


def _module(layer_class: Any) -> str:
    builtin = vars(keras.layers).get(layer_class.__name__) is layer_class
    return "keras.layers" if builtin else str(layer_class.__module__)


def _says_nothing(layer_class: Any, key: str, value: Any) -> bool:
    """Whether an argument that Keras 3 does not name can go: it never mattered, or is switched off."""
    if key in _parameters(layer_class):
        return False
    switched_off = value is None or value is False or (key == "groups" and value == 1)
    return key in FORGOTTEN or (switched_off and _module(layer_class) == "keras.layers")


@cache
def _parameters(layer_class: Any) -> frozenset[str]:
    """The arguments that a class and its bases name in their constructors."""
    constructors = (vars(base)["__init__"] for base in layer_class.__mro__[:-1] if "__init__" in vars(base))
    return frozenset(name for constructor in constructors for name in inspect.signature(constructor).parameters)
