"""Reading and writing .onnx files for a scheme: external data, constants in every form, names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from mh_edge.errors import InputError
from mh_edge.inspection import inspect
from mh_edge.quantization.onnx import model as onnxmodel
from mh_edge.quantization.scheme import Options, find_scheme
from tests.quantization import models
from tests.quantization.schemes import apply, run


@pytest.mark.parametrize("scheme", ["int8-dynamic", "fp16", "int4"])
def test_external_data_on_both_sides(scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond protobuf's limit (here lowered) the weights go beside the model; the file computes the same."""
    case = models.layers()
    inside = apply(scheme, case, tmp_path)
    source = tmp_path / "split" / "model.onnx"
    source.parent.mkdir()
    onnx.save(case.model, source, save_as_external_data=True, location="weights.bin", size_threshold=100)
    assert (source.parent / "weights.bin").is_file()
    monkeypatch.setattr(onnxmodel, "EXTERNAL_DATA_LIMIT", 1000)
    save = find_scheme("onnx", scheme).quantize(inspect(source), {}, Options()).save
    made = save(tmp_path / "out.onnx")
    again = save(tmp_path / "again.onnx")
    assert [path.suffix for path in made] == [".onnx", ".data"]
    assert made[1].read_bytes() == again[1].read_bytes()
    onnx.checker.check_model(str(made[0]), full_check=True)
    assert all(np.array_equal(a, b) for a, b in zip(run(made[0], case), inside.found, strict=True))


def test_missing_external_data(tmp_path: Path) -> None:
    source = tmp_path / "model.onnx"
    onnx.save(models.layers().model, source, save_as_external_data=True, location="weights.bin", size_threshold=100)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(InputError, match="weights of"):
        onnxmodel.load(inspect(source))


def test_constants_in_every_form(tmp_path: Path) -> None:
    """As Constant operations, as inputs with a default, and inside functions they are found all the same."""
    case = models.layers()
    graph = case.model.graph
    kernel, bias = graph.initializer[0], graph.initializer[1]
    graph.input.append(helper.make_tensor_value_info(bias.name, bias.data_type, bias.dims))
    graph.node.insert(0, helper.make_node("Constant", [], [kernel.name], value=kernel))
    del graph.initializer[0]
    opsets = [helper.make_opsetid("", 17)]
    twice = helper.make_function(
        "here", "Twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], opset_imports=opsets
    )
    case.model.functions.append(twice)
    case.model.opset_import.append(helper.make_opsetid("here", 1))
    last = graph.node[-1]
    graph.node.append(helper.make_node("Twice", ["half"], [last.output[0]], domain="here"))
    last.output[0] = "half"
    made = apply("int4", case, tmp_path)
    assert made.ops["MatMulNBits"] == 2
    assert made.ops["Twice"] == 0


def test_every_operation_has_a_name_of_its_own(tmp_path: Path) -> None:
    case = models.loop()
    for node in case.model.graph.node:
        node.name = ""
    model = onnxmodel.load(inspect(case.save(tmp_path / "model.onnx")))
    names = [node.name for node in onnxmodel.nodes(model)]
    assert len(set(names)) == len(names)
    assert {"before/MatMul", "step/MatMul", "after/Add"} <= set(names)


def test_sort_sees_what_bodies_read() -> None:
    graph = models.loop().model.graph
    expected = [node.output[0] for node in graph.node]
    onnxmodel.replace_nodes(graph, list(reversed(graph.node)))
    onnxmodel.sort(graph)
    found = [node.output[0] for node in graph.node]
    assert sorted(found) == sorted(expected)
    assert found.index("before/Add") < found.index("looped") < found.index("after/MatMul")


def test_tiny_is_little_of_the_whole(tmp_path: Path) -> None:
    """The small first product is spared beside large ones; where all are small, none is."""
    found = {}
    for name, sizes in (("mixed", (8, 64, 256, 256)), ("small", (8, 16, 16))):
        model = onnxmodel.load(inspect(models.layers(sizes=sizes).save(tmp_path / f"{name}.onnx")))
        found[name] = onnxmodel.tiny(onnxmodel.weighted(model, {"MatMul": 1}))
    assert found == {"mixed": {"d0/MatMul"}, "small": set()}
