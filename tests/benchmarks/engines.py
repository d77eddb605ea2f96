"""Opening a candidate: (file, threads) -> bind(feeds) -> a call that runs it once and returns its outputs as arrays.

Every engine computes in float32 and uses the number of threads it is told. Sessions are opened with what a user gets
by default, but for the threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import Model

Call = Callable[[], Sequence[Any]]
Bind = Callable[[Mapping[str, np.ndarray]], Call]

SEVERITY_ERROR = 3


def onnxruntime_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = SEVERITY_ERROR
    # A worker may spin within a run, as a user's does, and not on into the turn of the next candidate.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def flush_denormals() -> None:
    """From now on this process computes with denormals as zero: ONNX Runtime sets it once, with the first session."""
    import onnxruntime

    from mh_edge.machine import SQUARE_ONNX

    options = onnxruntime_options(1)
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    onnxruntime.InferenceSession(SQUARE_ONNX, options, providers=["CPUExecutionProvider"])


def named(inputs: Sequence[tuple[str, int]], feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds under the names of a file, (name, rank) each: by name, or in order where an exporter renamed them."""
    if {name for name, _ in inputs} == set(feeds):
        return dict(feeds)
    if len(inputs) != len(feeds):
        raise ValueError(f"the file has {len(inputs)} inputs, the model {len(feeds)}")
    arrays = list(feeds.values())
    if [rank for _, rank in inputs] != [array.ndim for array in arrays]:
        raise ValueError("the inputs of the file are none of the model's")
    return {name: array for (name, _), array in zip(inputs, arrays, strict=True)}


def _onnxruntime(model: Model, path: Path, threads: int) -> Bind:
    import onnxruntime

    del model
    session = onnxruntime.InferenceSession(str(path), onnxruntime_options(threads), providers=["CPUExecutionProvider"])
    inputs = [(item.name, len(item.shape)) for item in session.get_inputs()]

    def bind(feeds: Mapping[str, np.ndarray]) -> Call:
        given = named(inputs, feeds)
        return lambda: session.run(None, given)

    return bind


def _floor(model: Model, path: Path, threads: int) -> Bind:
    bind = _onnxruntime(model, path, threads)
    return lambda feeds: bind({"x": feeds["x"]})


def _openvino(model: Model, path: Path, threads: int) -> Bind:
    import openvino

    del model
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # it would compute in bfloat16 on a processor that can
    }
    request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()
    inputs = [(item.get_any_name(), len(item.partial_shape)) for item in request.model_inputs]

    def bind(feeds: Mapping[str, np.ndarray]) -> Call:
        given = named(inputs, feeds)

        def call() -> Sequence[Any]:
            results = request.infer(given, share_inputs=True, share_outputs=True)
            return [results[index] for index in range(len(results))]

        return call

    return bind


def _litert(model: Model, path: Path, threads: int) -> Bind:
    from ai_edge_litert.interpreter import Interpreter

    del model
    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    # "serving_default_x:0" of TensorFlow's converter is "x".
    where = {
        item["name"].removeprefix("serving_default_").partition(":")[0]: item
        for item in interpreter.get_input_details()
    }
    outputs = [item["index"] for item in interpreter.get_output_details()]

    def bind(feeds: Mapping[str, np.ndarray]) -> Call:
        given = named([(name, len(item["shape"])) for name, item in where.items()], feeds)
        placed = [(where[name]["index"], array) for name, array in given.items()]

        def call() -> Sequence[Any]:
            for index, array in placed:
                interpreter.set_tensor(index, array)
            interpreter.invoke()
            return [interpreter.get_tensor(index) for index in outputs]

        return call

    return bind


def _torch(model: Model, path: Path, threads: int) -> Bind:
    import torch

    from benchmarks.torch_models import open_torch

    torch.set_num_threads(threads)
    with np.load(path, allow_pickle=False) as file:
        weights = [file[name] for name in file.files]
    return lambda feeds: open_torch(model, weights, dict(feeds))


def tensorflow_threads(threads: int) -> None:
    """Before TensorFlow does anything else in this process: it cannot be changed afterwards."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _predict(model: Model, path: Path, threads: int) -> Bind:
    from benchmarks.building import build

    del path, threads
    keras_model = build(model)

    def bind(feeds: Mapping[str, np.ndarray]) -> Call:
        arrays = list(feeds.values())
        return lambda: [keras_model.predict(arrays, verbose=0, batch_size=len(arrays[0]))]

    return bind


def _function(model: Model, path: Path, threads: int, *, compiled: bool = False) -> Bind:
    import tensorflow as tf

    from benchmarks.building import build

    del path, threads
    keras_model = build(model)
    function = tf.function(lambda inputs: keras_model(inputs, training=False), jit_compile=compiled or None)

    def bind(feeds: Mapping[str, np.ndarray]) -> Call:
        given = [tf.constant(array) for array in feeds.values()]
        return lambda: [function(given).numpy()]

    return bind


def _xla(model: Model, path: Path, threads: int) -> Bind:
    return _function(model, path, threads, compiled=True)


ENGINES: Mapping[str, Callable[[Model, Path, int], Bind]] = {
    "onnxruntime": _onnxruntime,
    "floor": _floor,
    "openvino": _openvino,
    "litert": _litert,
    "torch": _torch,
    "predict": _predict,
    "function": _function,
    "xla": _xla,
}
TENSORFLOW = ("predict", "function", "xla")
"""Engines that bring TensorFlow and are measured in a process of their own."""
