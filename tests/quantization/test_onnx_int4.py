"""int4 of .onnx files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from mh_edge.errors import ConversionError, UsageError
from mh_edge.quantization.scheme import Options
from tests.quantization import models
from tests.quantization.schemes import apply, hashes_in_other_processes, run

ROUNDED = 0.14
"""4-bit weights of normal numbers in blocks of 32: errors of 5 to 11 % were seen; a wrong scale gives 40 %."""


@pytest.mark.parametrize("opset", range(17, 27))
def test_every_opset(opset: int, tmp_path: Path) -> None:
    made = apply("int4", models.layers(opset), tmp_path)
    assert made.ops["MatMulNBits"] == 2
    assert 0 < made.error < ROUNDED
    assert made.path.stat().st_size < 0.22 * (tmp_path / "float.onnx").stat().st_size


@pytest.mark.parametrize(("form", "opset"), [("sum", 17), ("given", 17), ("fused", 23), ("multihead", 17)])
@pytest.mark.parametrize("mask", [-1e4, -3.4e38])
def test_a_masked_row_keeps_its_result(form: str, opset: int, mask: float, tmp_path: Path) -> None:
    made = apply("int4", models.attention(form, mask, opset), tmp_path)
    assert made.ops["MatMulNBits"] == 4
    hidden = 3
    assert np.abs(made.found[0][hidden] - made.truth[0][hidden]).mean() < ROUNDED * made.truth[0].std()


@pytest.mark.parametrize(
    ("case", "products"),
    [(models.loop(inside=True), 3), (models.loop(inside=False), 3), (models.branch(), 4), (models.tied(), 3),
     (models.vector(), 1), (models.outputs(), 2), (models.embedding(), 1)],
    ids=["loop", "loop-outer-weight", "branch", "tied", "vector", "outputs", "table"],
)  # fmt: skip
def test_models_of_others(case: models.Case, products: int, tmp_path: Path) -> None:
    made = apply("int4", case, tmp_path)
    assert made.ops["MatMulNBits"] == products
    assert made.error < ROUNDED


@pytest.mark.parametrize("size", [16, 32, 64, 128, 256])
def test_block_sizes(size: int, tmp_path: Path) -> None:
    """Blocks no longer than the columns need; columns of 200 do not fill the last block."""
    made = apply("int4", models.layers(sizes=(200, 128, 64)), tmp_path, Options(block_size=size))
    nodes = [node for node in onnx.load(made.path).graph.node if node.op_type == "MatMulNBits"]
    found = [{one.name: one.i for one in node.attribute} for node in nodes]
    assert [(one["K"], one["block_size"]) for one in found] == [(200, size), (128, min(size, 128))]
    assert {one.get("accuracy_level", 0) for one in found} == {0}
    assert made.error < 1.5 * ROUNDED


def test_smaller_blocks_are_more_accurate(tmp_path: Path) -> None:
    errors = [apply("int4", models.layers(), tmp_path, Options(block_size=size)).error for size in (16, 64)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("size", [0, 8, 48, 512])
def test_other_block_sizes_are_refused(size: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"no blocks of {size} weights") as refused:
        apply("int4", models.layers(), tmp_path, Options(block_size=size))
    assert "16, 32, 64, 128, 256" in refused.value.hint


def test_kept_float(tmp_path: Path) -> None:
    case = models.layers(sizes=(8, 64, 256, 256))
    made = apply("int4", case, tmp_path)
    assert len(made.kept) == 1
    assert made.ops["MatMulNBits"] == 2
    named = apply("int4", models.attention(), tmp_path, Options(keep_float=("attention/o",)))
    assert set(named.kept) == {"attention/o/MatMul"}
    few = apply("int4", models.layers(sizes=(15, 256, 256)), tmp_path)
    assert ["smallest block" in why for why in few.kept.values()] == [True]


@pytest.mark.parametrize(
    ("case", "why"),
    [
        (models.stacked(), "not one matrix"),
        (models.gru(), "no GRU with 4-bit weights"),
        (models.nothing(), "no product with constant float weights"),
    ],
    ids=["stacked", "gru", "nothing"],
)
def test_nothing_to_quantize(case: models.Case, why: str, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=why):
        apply("int4", case, tmp_path)


def test_the_comparison_fails_when_it_should(tmp_path: Path) -> None:
    case = models.layers()
    made = apply("int4", case, tmp_path)
    model = onnx.load(made.path)
    scale = next(tensor for tensor in model.graph.initializer if "scale" in tensor.name)
    scale.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(scale), scale.name))
    onnx.save(model, made.path)
    assert np.abs(run(made.path, case)[0] - made.truth[0]).mean() > 2 * ROUNDED * made.truth[0].std()


def test_the_same_bytes_in_any_process(tmp_path: Path) -> None:
    apply("int4", models.attention(), tmp_path)
    assert len(hashes_in_other_processes("int4", tmp_path / "float.onnx", tmp_path)) == 1
