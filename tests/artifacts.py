"""Artifacts for tests, made without this project's converters: what they prove must not depend on what they check."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from onnx import TensorProto, helper, numpy_helper


def specs(model: keras.Model, **sizes: int) -> list[tf.TensorSpec]:
    """TensorSpecs of a functional model; sizes: `batch` and `sequence` fix the free sizes."""
    order = ("batch", "sequence")
    return [
        tf.TensorSpec(
            [sizes.get(order[min(axis, 1)]) if size is None else size for axis, size in enumerate(tensor.shape)],
            tensor.dtype,
            name=tensor.name,
        )
        for tensor in model.inputs
    ]


def _function(model: keras.Model, signature: list[tf.TensorSpec]) -> tf.types.experimental.PolymorphicFunction:
    def call(*inputs: tf.Tensor) -> list[tf.Tensor]:
        return keras.tree.flatten(model(list(inputs) if len(inputs) > 1 else inputs[0], training=False))

    return tf.function(call, input_signature=signature)


def to_onnx(model: keras.Model, path: Path, **sizes: int) -> Path:
    """The model through tf2onnx."""
    signature = specs(model, **sizes)
    tf2onnx.convert.from_function(
        _function(model, signature), input_signature=signature, opset=17, output_path=str(path)
    )
    return path


def to_tflite(model: keras.Model, path: Path, *, flex: bool = False, **sizes: int) -> Path:
    """The model through the TFLite converter."""
    concrete = _function(model, specs(model, **sizes)).get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], tf.Module())
    if flex:
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    path.write_bytes(converter.convert())
    return path


def stateful_tflite(path: Path) -> Path:
    """y = x + (sum of all x so far): a file whose every call changes the next."""

    class Running(tf.Module):
        def __init__(self) -> None:
            self.sum = tf.Variable(tf.zeros((1, 4)))

        @tf.function(input_signature=[tf.TensorSpec((1, 4), name="x")])
        def __call__(self, x: tf.Tensor) -> dict[str, tf.Tensor]:
            self.sum.assign_add(x)
            return {"y": x + self.sum}

    module = Running()
    folder = path.parent / f"{path.stem}.saved"
    tf.saved_model.save(module, str(folder), signatures=module.__call__)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.experimental_enable_resource_variables = True
    path.write_bytes(converter.convert())
    return path


def affine_onnx(
    path: Path,
    kernel: np.ndarray,
    bias: np.ndarray,
    *,
    op: str = "Identity",
    input_shape: tuple[int | str, ...] = ("batch", "features"),
    names: tuple[str, str] = ("x", "y"),
) -> Path:
    """y = op(x @ kernel + bias), written by hand. op: any ONNX operation of one float tensor; ArgMax gives int64."""
    x, y = names
    kind = TensorProto.INT64 if op == "ArgMax" else TensorProto.FLOAT
    attributes = {"axis": -1, "keepdims": 0} if op == "ArgMax" else {}
    nodes = [
        helper.make_node("MatMul", [x, "kernel"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node(op, ["sum"], [y], **attributes),
    ]
    output_shape = [*input_shape[:-1]] if op == "ArgMax" else [*input_shape[:-1], kernel.shape[1]]
    graph = helper.make_graph(
        nodes,
        "affine",
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [*input_shape[:-1], kernel.shape[0]])],
        [helper.make_tensor_value_info(y, kind, output_shape)],
        [
            numpy_helper.from_array(kernel.astype("float32"), "kernel"),
            numpy_helper.from_array(bias.astype("float32"), "bias"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
