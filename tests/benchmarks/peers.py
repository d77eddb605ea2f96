"""Making the candidates' files: ours, and what a user would pick instead, from one Keras model.

Each maker is called with a `Source` and writes one file, or raises; what it raises is what the tables say of it.
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import mh_edge
from benchmarks.building import build
from benchmarks.floors import FLOORS, write_floor
from benchmarks.models import HEADS, Model, Point

TORCH_KINDS = ("attention", "encoder", "recurrent")
"""Those that `benchmarks.torch_models` knows; PyTorch itself is imported only to run them."""

TF2ONNX_OPSET = 18
"""The newest that tf2onnx writes."""


class Source:
    """What the files of one model are made from, and the folder they go to."""

    def __init__(self, model: Model, folder: Path) -> None:
        self.model = model
        self.folder = folder

    @functools.cached_property
    def keras_model(self) -> keras.Model:
        built = build(self.model)
        built(list(self.model.feeds(self.model.points[0]).values()))  # Keras exports none that was never called
        return built

    def fixed(self, point: Point) -> keras.Model:
        built = build(self.model, point.time, point.batch)
        built(list(self.model.feeds(point).values()))
        return built

    @property
    def naive(self) -> Path:
        path = self.folder / "tf2onnx.onnx"
        if not path.exists():
            raise FileNotFoundError("tf2onnx wrote no file to start from")
        return path


Maker = Callable[[Source, Path], None]


def _export(source: Source, path: Path, merge: bool = True) -> None:
    mh_edge.export(source.keras_model, path, verify=False, merge=merge)


def _branches(source: Source, path: Path) -> None:
    _export(source, path, merge=False)


def _function(model: keras.Model) -> tuple[Any, list[tf.TensorSpec]]:
    specs = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]
    return tf.function(lambda *inputs: model(list(inputs), training=False)), specs


def _tf2onnx(source: Source, path: Path) -> None:
    import tf2onnx

    function, specs = _function(source.keras_model)
    tf2onnx.convert.from_function(function, input_signature=specs, opset=TF2ONNX_OPSET, output_path=str(path))


def _keras_onnx(source: Source, path: Path) -> None:
    source.keras_model.export(str(path), format="onnx", verbose=False)


def _optimizer(source: Source, path: Path) -> None:
    from onnxruntime.transformers import optimizer

    width = source.model.sizes.get("width", 0)
    heads = source.model.sizes.get("heads", HEADS.get(width, 0))
    sizes = {"num_heads": heads, "hidden_size": width} if source.model.kind in ("attention", "encoder") else {}
    optimizer.optimize_model(str(source.naive), model_type="bert", **sizes).save_model_to_file(str(path))


def _onnxslim(source: Source, path: Path) -> None:
    import onnxslim

    onnxslim.slim(str(source.naive), str(path))


def _copy(source: Source, path: Path) -> None:
    shutil.copyfile(source.naive, path)


def _weights(source: Source, path: Path) -> None:
    np.savez(path, *source.keras_model.get_weights())


def _floor(source: Source, path: Path) -> None:
    write_floor(source.model, path)


def _nothing(source: Source, path: Path) -> None:
    del source
    path.touch()


@dataclass(frozen=True)
class Candidate:
    """One way to run a model. title: in the tables. suffix: of its file. takes: which models it is measured for."""

    name: str
    title: str
    engine: str
    suffix: str
    make: Maker
    takes: Callable[[Model], bool] = lambda model: True


ONNX = (
    Candidate("tf2onnx", "tf2onnx", "onnxruntime", ".onnx", _tf2onnx),
    Candidate("keras", "Keras `export`", "onnxruntime", ".onnx", _keras_onnx),
    Candidate("optimizer", "tf2onnx + ORT's transformer optimizer", "onnxruntime", ".onnx", _optimizer),
    Candidate("onnxslim", "tf2onnx + onnxslim", "onnxruntime", ".onnx", _onnxslim),
    Candidate("openvino", "OpenVINO of tf2onnx", "openvino", ".onnx", _copy),
    Candidate("torch", "PyTorch", "torch", ".npz", _weights, lambda model: model.kind in TORCH_KINDS),
    Candidate("predict", "Keras `predict`", "predict", ".tf", _nothing, lambda model: model.tensorflow),
    Candidate("function", "`tf.function`", "function", ".tf", _nothing, lambda model: model.tensorflow),
    Candidate("xla", "`tf.function`, XLA", "xla", ".tf", _nothing, lambda model: model.tensorflow),
    Candidate("floor", "bare products", "floor", ".onnx", _floor, lambda model: model.kind in FLOORS),
    Candidate("ours", "ours", "onnxruntime", ".onnx", _export),
    Candidate("branches", "ours, `--no-merge`", "onnxruntime", ".onnx", _branches, lambda model: model.branches),
)
"""In the order in which they are made: some start from what tf2onnx wrote, ours can be made anew alone."""

OURS = ("ours", "branches")


def make_tflite(name: str, source: Source, point: Point, path: Path) -> None:
    """One TFLite file of fixed sizes: ours, Keras's own litert export, or TensorFlow's converter without Flex."""
    if name in OURS:
        merge = name == "ours"
        mh_edge.export(source.fixed(point), path, verify=False, merge=merge)
    elif name == "keras":
        source.fixed(point).export(str(path), format="litert", verbose=False)
    else:
        function, specs = _function(source.fixed(point))
        converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function(*specs)])
        path.write_bytes(converter.convert())


TFLITE: Mapping[str, str] = {
    "keras": "Keras `export`, litert",
    "converter": "TensorFlow's converter",
    "ours": "ours",
    "branches": "ours, `--no-merge`",
}
