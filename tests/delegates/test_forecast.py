"""Forecasts beside what is really taken, by QNN's plugin on Qualcomm's simulator and by LiteRT on a software GPU."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

import tflite_files
from forecast import files
from mh_edge.errors import InputError
from mh_edge.forecast.forecasting import forecast
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.litert_gpu import LiteRtGpuSession
from mh_edge.runtimes.qnn import QnnSession
from quantization import models
from quantization.models import Case

WHOLE = {
    "dense": files.dense,
    "attention": files.attention,
    "attention, boolean mask": lambda path: files.attention(path, files.BOOL),
    "quantized": lambda path: files.quantized(path, back=True),
    "quantized, floats out": lambda path: files.quantized(path, back=False),
    "LSTM": files.lstm,
    "LSTM, lengths": lambda path: files.lstm(path, lengths=True),
    "LSTM, activations": lambda path: files.lstm(path, activations=["Sigmoid", "Tanh", "Tanh"]),
    "loop": files.loop,
}

CASES = {
    **{f"attention, {form}": lambda form=form: models.attention(form) for form in ("sum", "where", "given", "exp")},
    "attention, multihead": lambda: models.attention("multihead"),
    "attention, fused": lambda: models.attention("fused", opset=23),
    "layers": models.layers,
    "tied": models.tied,
    "loop with weights": models.loop,
    "GRU": models.gru,
    "LSTM both ways": lambda: models.lstm(8, directions=2),
    "LSTM, states": lambda: models.lstm(8, states=True),
    "embedding": models.embedding,
    "root mean square": models.root_mean_square,
    "stacked": models.stacked,
    "outputs": models.outputs,
}


def fixed(case: Case, path: Path) -> Path:
    for value in (*case.model.graph.input, *case.model.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                size.dim_value = models.BATCH
    onnx.save(case.model, str(path))
    return path


def zeros(session: Session) -> dict[str, np.ndarray]:
    return {item.name: np.zeros(item.shape, item.dtype) for item in session.signature.inputs}  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*WHOLE, *CASES])
def test_the_forecast_is_what_the_plugin_takes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.onnx"
    if name in WHOLE:
        WHOLE[name](path)
    else:
        fixed(CASES[name](), path)
    found = forecast(path, ["qnn"])["qnn"]
    with QnnSession(path) as session:
        session.run(zeros(session))
        real = session.placement()
    refused: Counter[str] = Counter()
    for blocker in found.blockers:
        refused[blocker.op.rpartition(".")[2]] += blocker.count
    assert (found.nodes, found.total, found.partitions) == (real.on_device, real.nodes, real.partitions)
    assert refused == {one.op: one.count for one in real.fallbacks}


def test_where_they_differ(tmp_path: Path) -> None:
    """A branch: the plugin takes it with what is in it, as one node; the forecast does not follow it there."""
    path = fixed(models.branch(), tmp_path / "m.onnx")
    found = forecast(path, ["qnn"])["qnn"]
    with QnnSession(path) as session:
        session.run(zeros(session))
        real = session.placement()
    assert real.whole
    assert not found.whole
    assert any("not foretold" in blocker.reason for blocker in found.blockers)


def test_free_sizes_are_taken_by_neither(tmp_path: Path) -> None:
    path = files.dense(tmp_path / "m.onnx", "batch")
    assert forecast(path, ["qnn"])["qnn"].nodes == 0
    with pytest.raises(InputError, match="leaves batch free"):
        QnnSession(path)


ROW = ("float32", [1, 4], False)
PARTS = [("EXP", [0], [1]), ("NEG", [1], [2]), ("L2_NORMALIZATION", [2], [3]), ("ABS", [3], [4])]
CASTS = [("CAST", [0], [1]), ("CAST", [1], [2]), ("EXP", [2], [3])]
GPU = {
    "dense": tflite_files.dense,
    "masked": tflite_files.masked,
    "the same tensor twice": tflite_files.broken,
    "the smaller part": lambda path: files.tflite(path, PARTS, [ROW] * 5, [0], [4]),
    "int64": lambda path: files.tflite(path, CASTS, [ROW, ("int64", [1, 4], False), ROW, ROW], [0], [3]),
}


@pytest.mark.parametrize("name", GPU)
def test_the_forecast_is_what_the_gpu_takes(tmp_path: Path, name: str) -> None:
    path = GPU[name](tmp_path / "m.tflite")
    found = forecast(path, ["litert-gpu"])["litert-gpu"]
    with LiteRtGpuSession(path) as session:
        session.run(zeros(session))
        real = session.placement()
    assert (found.nodes, found.total, found.partitions) == (real.on_device, real.nodes, real.partitions)
