"""The platform ort-mobile: what the converter writes, which ONNX Runtime opens again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import mh_edge
from mh_edge.bundling import ort_format
from mh_edge.bundling.ort_mobile import CONFIG, OrtMobile
from mh_edge.errors import ConversionError, NotEqualError
from mh_edge.machine import SQUARE_ONNX

CHAIN = ("Relu", "Tanh", "Neg", "Abs", "Exp", "Cos", "Ceil", "Sigmoid")


def model(path: Path, *ops: str, to: int = TensorProto.FLOAT) -> Path:
    """y = the operations one after the other on x: (4,), between casts where they are not float32."""
    ops = ("Cast", *ops, "Cast") if to != TensorProto.FLOAT else ops
    casts = iter((to, TensorProto.FLOAT))
    nodes = [
        helper.make_node(op, [f"x{place}"], [f"x{place + 1}"], **({"to": next(casts)} if op == "Cast" else {}))
        for place, op in enumerate(ops)
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("x0", f"x{len(ops)}"))
    graph = helper.make_graph(nodes, "chain", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of square.onnx and chain.onnx, whose folder is gone."""
    folder = tmp_path_factory.mktemp("ort_mobile")
    source = folder / "source"
    source.mkdir()
    (source / "square.onnx").write_bytes(SQUARE_ONNX)
    made = mh_edge.bundle([source / "square.onnx", model(source / "chain.onnx", *CHAIN)], "ort-mobile", folder / "kit")
    assert [(one.path, one.device) for one in made.artifacts] == [
        ("models/square.ort", "cpu"),
        ("models/chain.ort", "cpu"),
    ]
    (source / "square.onnx").unlink()
    return folder / "kit"


def test_the_files_open_without_the_ones_that_they_were_made_of(kit: Path) -> None:
    session = onnxruntime.InferenceSession(kit / "models/square.ort")
    (got,) = session.run(None, {"x": np.array([3.0, -2.0], np.float32)})
    assert got.tolist() == [9.0, 4.0]


def test_the_config_lists_operators_and_types_of_all_models(kit: Path) -> None:
    lines = (kit / CONFIG).read_text().splitlines()
    assert lines[:3] == ["# Generated from:", "# - square.ort", "# - chain.ort"]
    listed = ",".join(line.split(";", 2)[2] for line in lines if line.startswith("ai.onnx;"))
    assert all(f"{op}{{" in listed or op in listed.split(",") for op in ("Mul", *CHAIN))
    assert 'Mul{"inputs": {"0": ["float"]}}' in listed


def test_no_file_names_a_place_of_this_machine(kit: Path) -> None:
    files = [path for path in kit.rglob("*") if path.is_file()]
    assert {"README.md", "bundle.h", "sample.cc", "selftest.cc", "bundle.json"} <= {path.name for path in files}
    assert not [path for path in files if str(kit.parent).encode() in path.read_bytes()]
    assert "{{" not in (kit / "README.md").read_text()


def test_the_same_model_gives_the_same_bytes(kit: Path, tmp_path: Path) -> None:
    """The converter's own order of kernels differs in each process."""
    (tmp_path / "elsewhere").mkdir()
    source = model(tmp_path / "elsewhere/chain.onnx", *CHAIN)
    again = ort_format.made(tmp_path / "again.ort", source)
    assert again.read_bytes() == (kit / "models/chain.ort").read_bytes()


def test_a_file_that_computes_something_else_is_not_bundled(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = (kit / "models/chain.ort").read_bytes()

    def place(_: OrtMobile, __: object, models: Path) -> tuple[Path, ...]:
        (models / "chain.ort").write_bytes(other)
        return (models / "chain.ort",)

    monkeypatch.setattr(OrtMobile, "place", place)
    source = model(tmp_path / "chain.onnx", *CHAIN[:-1], "Softplus")
    with pytest.raises(NotEqualError, match=r"chain\.ort does not give its golden numbers"):
        mh_edge.bundle([source], "ort-mobile", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()


def test_what_it_cannot_take_is_refused_with_what_mends_it(squares: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=r"takes \.onnx files") as caught:
        mh_edge.bundle([squares[1]], "ort-mobile", tmp_path / "kit")
    assert caught.value.hint == "mh-edge export MODEL --to onnx writes one."
    half = model(tmp_path / "half.onnx", "Relu", to=TensorProto.FLOAT16)
    with pytest.raises(ConversionError, match="float16") as caught:
        mh_edge.bundle([half], "ort-mobile", tmp_path / "kit")
    assert "--scheme int8-dynamic" in caught.value.hint


def test_what_the_converter_says_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ConversionError, match=r"cannot write 'bad\.ort': .*(?i:invalid|parsing)"):
        ort_format.made(tmp_path / "bad.ort", tmp_path / "bad.onnx")
