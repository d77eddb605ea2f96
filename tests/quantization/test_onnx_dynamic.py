"""int8-dynamic of .onnx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mh_edge.errors import ConversionError
from mh_edge.quantization.scheme import Options
from tests.quantization import models
from tests.quantization.schemes import apply, hashes_in_other_processes, run

ROUNDED = 0.015
"""8-bit weights and activations, normal numbers, a few products: errors of .6 to 1.3 % were seen. A wrong scale or a
weight of another operation gives more than 20 %.
"""


@pytest.mark.parametrize("opset", range(17, 27))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    made = apply("int8-dynamic", models.layers(opset), tmp_path)
    assert made.ops["MatMulInteger"] == made.ops["DynamicQuantizeLinear"] == 2
    assert 0 < made.error < ROUNDED
    assert made.path.stat().st_size < 0.36 * (tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize(
    ("form", "opset"), [("sum", 17), ("where", 17), ("given", 17), ("exp", 18), ("fused", 23), ("multihead", 17)]
)
@pytest.mark.parametrize("mask", [-1e4, -1e9, -3.4e38])
def test_a_masked_row_keeps_its_result(form: str, opset: int, mask: float, tmp_path: Path) -> None:
    case = models.attention(form, mask, opset)
    made = apply("int8-dynamic", case, tmp_path)
    assert made.ops["MatMulInteger"] == 4
    assert made.error < ROUNDED
    hidden = 3
    assert np.abs(made.found[0][hidden] - made.truth[0][hidden]).mean() < ROUNDED * made.truth[0].std()
    assert made.ops["Attention"] == (form == "fused")


def test_a_mask_of_infinity_is_told(tmp_path: Path) -> None:
    assert any(
        "-infinity" in note
        for note in apply("int8-dynamic", models.attention("sum", -np.inf), tmp_path).quantized.notes
    )
    assert not any("-infinity" in note for note in apply("int8-dynamic", models.attention(), tmp_path).quantized.notes)


@pytest.mark.parametrize(
    ("case", "integer"),
    [
        (models.loop(inside=True), 3),
        (models.loop(inside=False), 3),
        (models.branch(), 4),
        (models.tied(), 3),
        (models.vector(), 1),
        (models.outputs(), 2),
        (models.root_mean_square(), 2),
    ],
    ids=["loop", "loop-outer-weight", "branch", "tied", "vector", "outputs", "rms"],
)
def test_models_of_others(case: models.Case, integer: int, tmp_path: Path) -> None:
    made = apply("int8-dynamic", case, tmp_path)
    assert made.ops["MatMulInteger"] == integer
    assert made.error < ROUNDED


@pytest.mark.parametrize("per_channel", [True, False])
def test_scales_per_channel_or_per_tensor(per_channel: bool, tmp_path: Path) -> None:
    made = apply("int8-dynamic", models.layers(), tmp_path, Options(per_channel=per_channel))
    scales = [t for t in onnx.load(made.path).graph.initializer if t.name.endswith("_scale")]
    assert [list(scale.dims) for scale in scales] == [[64] if per_channel else []] * 2
    assert made.error < ROUNDED


def test_a_stack_of_matrices_has_no_scale_per_channel(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="not one matrix"):
        apply("int8-dynamic", models.stacked(), tmp_path)
    assert apply("int8-dynamic", models.stacked(), tmp_path, Options(per_channel=False)).error < ROUNDED


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("peepholes", [False, True])
def test_lstm(directions: int, states: bool, peepholes: bool, tmp_path: Path) -> None:
    made = apply("int8-dynamic", models.lstm(64, directions, states, peepholes), tmp_path)
    assert made.ops == {"DynamicQuantizeLSTM": 1}
    assert made.error < ROUNDED


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (models.lstm(32), "slower than the float one with 32 units"),
        (models.gru(), "no dynamic kernel for GRU"),
        (models.nothing(), "no product, LSTM or embedding table"),
    ],
    ids=["lstm", "gru", "nothing"],
)
def test_nothing_to_quantize(case: models.Case, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=why):
        apply("int8-dynamic", case, tmp_path)
    assert not (tmp_path / "quantized.onnx").exists()


def test_a_table_is_looked_up_in_integers(tmp_path: Path) -> None:
    made = apply("int8-dynamic", models.embedding(), tmp_path)
    assert made.ops["Gather"] == made.ops["MatMulInteger"] == 1
    assert made.path.stat().st_size < 0.3 * (tmp_path / "float.onnx").stat().st_size
    assert made.error < ROUNDED


def test_rows_of_a_table_behind_a_transpose(tmp_path: Path) -> None:
    """ONNX Runtime 1.31 aborts the process over a DequantizeLinear that it moves there."""
    made = apply("int8-dynamic", models.embedding_before_loop(), tmp_path)
    assert made.ops["DequantizeLinear"] == 0
    assert made.error < ROUNDED


def test_kept_float(tmp_path: Path) -> None:
    """By name, and the tiny first product; a layer's name stands for all of it."""
    case = models.layers(sizes=(8, 64, 256, 256))
    made = apply("int8-dynamic", case, tmp_path)
    assert list(made.kept.values()) == ["its weights are so few that integers would cost accuracy and save nothing"]
    assert made.ops["MatMulInteger"] == 2
    attention = models.attention()
    named = apply("int8-dynamic", attention, tmp_path, Options(keep_float=("attention/q", "attention/o/MatMul")))
    assert set(named.kept) == {"attention/q/MatMul", "attention/o/MatMul"}
    assert named.ops["MatMulInteger"] == 2


def test_the_comparison_fails_when_it_should(tmp_path: Path) -> None:
    case = models.layers()
    made = apply("int8-dynamic", case, tmp_path)
    model = onnx.load(made.path)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_scale"))
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.25), scale.name))
    onnx.save(model, made.path)
    assert np.abs(run(made.path, case)[0] - made.truth[0]).mean() > 4 * ROUNDED * made.truth[0].std()


def test_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    made = apply("int8-dynamic", models.attention(), tmp_path)
    assert len(hashes_in_other_processes("int8-dynamic", tmp_path / "float.onnx", tmp_path)) == 1
    assert made.files == (made.path,)
