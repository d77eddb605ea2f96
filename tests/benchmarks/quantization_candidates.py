"""Making the quantized files: the schemes of mh-edge, and what a user would pick instead, from one trained model.

Every maker gets the folder of a trained model, which holds model.keras, ours.onnx, the same with batch 1,
ours.tflite, tf2onnx.onnx and calibration.npz, and writes one file, or raises; what it raises is what the table says
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 50
"""Calibration samples run at once where a tool lets one choose."""

INT4_BLOCK = 32

FIXED = "ours-batch1.onnx"
"""QNN compiles for fixed sizes."""

Make = Callable[[Path, Path], None]


@dataclass(frozen=True)
class Candidate:
    """One quantized form of a model. scheme: of mh-edge; empty for a peer. batch: of its file, where that is fixed."""

    format: str
    title: str
    make: Make
    scheme: str = ""
    batch: int | None = None

    @property
    def file(self) -> str:
        words = "".join(letter if letter.isalnum() else "-" for letter in self.title)
        return f"{words}.{self.format}"


def samples(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "calibration.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name != "labels"}


def _scheme(format: str, scheme: str) -> Candidate:
    source = FIXED if scheme == "qnn-a16w8" else f"ours.{format}"

    def make(folder: Path, path: Path) -> None:
        import mh_edge

        data = folder / "calibration.npz"
        mh_edge.quantize(folder / source, path, scheme=scheme, calibration=data, timed=False)

    return Candidate(format, f"mh-edge {scheme}", make, scheme, 1 if source == FIXED else None)


def _prepared(source: Path) -> Path:
    """What onnxruntime asks for before it quantizes: shapes inferred, the graph optimized."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    path = source.with_name(f"{source.stem}-prepared.onnx")
    if not path.exists():
        quant_pre_process(str(source), str(path), skip_symbolic_shape=True)  # it fails on what has no shape
    return path


def _static(source: str, method: str) -> Make:
    def make(folder: Path, path: Path) -> None:
        from onnxruntime import quantization

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                arrays = samples(folder)
                starts = range(0, len(next(iter(arrays.values()))), CHUNK)
                self.feeds = ({name: array[at : at + CHUNK] for name, array in arrays.items()} for at in starts)

            def get_next(self) -> Any:
                return next(self.feeds, None)

        quantization.quantize_static(
            str(_prepared(folder / source)),
            str(path),
            Reader(),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod[method],
        )

    return make


def _dynamic(source: str) -> Make:
    def make(folder: Path, path: Path) -> None:
        from onnxruntime import quantization

        weights = quantization.QuantType.QInt8
        quantization.quantize_dynamic(str(folder / source), str(path), per_channel=True, weight_type=weights)

    return make


def _int4(folder: Path, path: Path) -> None:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(str(folder / "ours.onnx"), block_size=INT4_BLOCK, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(path))


def _half(folder: Path, path: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(folder / "ours.onnx"), keep_io_types=True), path)


def _rewritten(folder: Path, path: Path) -> None:
    """What the schemes start from, without integers: it tells their part of the speed from the rewriting's."""
    import onnx

    from mh_edge.quantization.onnx.products import as_gemms

    onnx.save(as_gemms(onnx.load(folder / "ours.onnx")), path)


def _converter(kind: str) -> Make:
    """TensorFlow's own converter from the Keras model, batch 1, inputs and outputs float."""

    def make(folder: Path, path: Path) -> None:
        import keras
        import tensorflow as tf
        from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

        import mh_edge.layers  # noqa: F401 - registers the layers

        model = keras.models.load_model(folder / "model.keras")
        arrays = samples(folder)
        shapes = {tensor.name: arrays[tensor.name].shape[1:] for tensor in model.inputs}
        specs = [tf.TensorSpec((1, *shapes[tensor.name]), tensor.dtype, name=tensor.name) for tensor in model.inputs]
        function = tf.function(lambda *inputs: model(list(inputs), training=False)).get_concrete_function(*specs)
        # With variables its calibration fails: they hold nothing yet.
        frozen = convert_variables_to_constants_v2(function)
        converter = tf.lite.TFLiteConverter.from_concrete_functions([frozen])
        converter.optimizations = [tf.lite.Optimize.DEFAULT]

        def representative() -> Iterator[list[np.ndarray]]:
            for index in range(len(arrays[specs[0].name])):
                yield [arrays[spec.name][index : index + 1] for spec in specs]

        if kind == "fp16":
            converter.target_spec.supported_types = [tf.float16]
        elif kind != "dynamic":
            converter.representative_dataset = representative
            ops = tf.lite.OpsSet
            sixteen = ops.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8
            converter.target_spec.supported_ops = [ops.TFLITE_BUILTINS_INT8 if kind == "int8" else sixteen]
        path.write_bytes(converter.convert())

    return make


def _litert(recipe: str) -> Make:
    """litert-quantizer's own recipe on our file."""

    def make(folder: Path, path: Path) -> None:
        from litert_quantizer import quantizer
        from litert_quantizer import recipe as recipes

        tool = quantizer.Quantizer(str(folder / "ours.tflite"))
        tool.load_quantization_recipe(getattr(recipes, recipe)())
        arrays = samples(folder)
        count = len(next(iter(arrays.values())))
        feeds = [{name: array[at : at + 1] for name, array in arrays.items()} for at in range(count)]
        seen = tool.calibrate({"serving_default": feeds}) if tool.need_calibration else None
        tool.quantize(seen).export_model(str(path))

    return make


ONNX_SCHEMES = ("int8", "int8-dynamic", "int8-a16", "qnn-a16w8", "int4", "fp16")
TFLITE_SCHEMES = ("int8", "int8-dynamic", "int16x8", "int4", "fp16")

CANDIDATES = (
    *(_scheme("onnx", scheme) for scheme in ONNX_SCHEMES),
    Candidate("onnx", "float, products as Gemm", _rewritten),
    Candidate("onnx", "quantize_static, min-max", _static("ours.onnx", "MinMax")),
    Candidate("onnx", "quantize_static, entropy", _static("ours.onnx", "Entropy")),
    Candidate("onnx", "quantize_static, percentile", _static("ours.onnx", "Percentile")),
    Candidate("onnx", "quantize_dynamic", _dynamic("ours.onnx")),
    Candidate("onnx", "MatMulNBits", _int4),
    Candidate("onnx", "onnxruntime float16", _half),
    Candidate("onnx", "tf2onnx, quantize_static, min-max", _static("tf2onnx.onnx", "MinMax")),
    Candidate("onnx", "tf2onnx, quantize_static, entropy", _static("tf2onnx.onnx", "Entropy")),
    Candidate("onnx", "tf2onnx, quantize_dynamic", _dynamic("tf2onnx.onnx")),
    *(_scheme("tflite", scheme) for scheme in TFLITE_SCHEMES),
    Candidate("tflite", "tf.lite converter, full int8", _converter("int8")),
    Candidate("tflite", "tf.lite converter, dynamic range", _converter("dynamic")),
    Candidate("tflite", "tf.lite converter, int16x8", _converter("int16x8")),
    Candidate("tflite", "tf.lite converter, float16", _converter("fp16")),
    Candidate("tflite", "litert-quantizer static_wi8_ai8", _litert("static_wi8_ai8")),
    Candidate("tflite", "litert-quantizer dynamic_wi8_afp32", _litert("dynamic_wi8_afp32")),
    Candidate("tflite", "litert-quantizer static_wi8_ai16", _litert("static_wi8_ai16")),
    Candidate("tflite", "litert-quantizer dynamic_wi4_afp32", _litert("dynamic_wi4_afp32")),
)
