"""The forecast for QNN beside what its plugin really takes, on Qualcomm's simulator: nodes, parts, what is left."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from forecast import files
from mh_edge.errors import InputError
from mh_edge.forecast.forecasting import forecast
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


@pytest.mark.parametrize("name", [*WHOLE, *CASES])
def test_the_forecast_is_what_the_plugin_takes(tmp_path: Path, name: str) -> None:
    path = tmp_path / "m.onnx"
    if name in WHOLE:
        WHOLE[name](path)
    else:
        fixed(CASES[name](), path)
    found = forecast(path, ["qnn"])["qnn"]
    with QnnSession(path) as session:
        inputs = session.signature.inputs
        session.run({item.name: np.zeros(item.shape, item.dtype) for item in inputs})  # type: ignore[arg-type]
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
        session.run({item.name: np.zeros(item.shape, item.dtype) for item in session.signature.inputs})  # type: ignore[arg-type]
        real = session.placement()
    assert real.whole
    assert not found.whole
    assert any("not foretold" in blocker.reason for blocker in found.blockers)


def test_free_sizes_are_taken_by_neither(tmp_path: Path) -> None:
    path = files.dense(tmp_path / "m.onnx", "batch")
    assert forecast(path, ["qnn"])["qnn"].nodes == 0
    with pytest.raises(InputError, match="leaves batch free"):
        QnnSession(path)
