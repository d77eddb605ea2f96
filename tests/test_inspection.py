"""Inspect: files of ours and of others, and files that are damaged or something else."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mh_edge.artifact import Choice, Manifest, file_sha256
from mh_edge.errors import InputError, UnavailableError
from mh_edge.flatbuffer import METADATA
from mh_edge.inspection import RULE_KEY, inspect
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
from mh_edge.signature import Signature, Tensor


def marked(node: onnx.NodeProto, rule: str) -> onnx.NodeProto:
    node.metadata_props.add(key=RULE_KEY, value=rule)
    return node


def branching_model() -> onnx.ModelProto:
    """y = x + w, or tanh(x) in both branches of an If; one custom operation."""

    def branch(op: str) -> onnx.GraphProto:
        value = helper.make_tensor_value_info("b", TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["x"], ["b"])], op, [], [value])

    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", None, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, 3])
    weights = numpy_helper.from_array(np.ones(3, np.float32), "w")
    nodes = [
        marked(helper.make_node("Add", ["x", "w"], ["s"], name="first/Add"), "Bias"),
        marked(helper.make_node("Add", ["s", "w"], ["t"], name="second/Add"), "Bias"),
        helper.make_node("If", ["c"], ["i"], then_branch=branch("Tanh"), else_branch=branch("Tanh")),
        helper.make_node("Gelu", ["t"], ["g"], domain="com.microsoft"),
        helper.make_node("Add", ["g", "i"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "g", [condition, x], [y], [weights])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets)


def test_a_foreign_onnx_file(tmp_path: Path) -> None:
    path = tmp_path / "foreign.onnx"
    onnx.save(branching_model(), str(path))
    found = inspect(path)
    assert (found.format, found.opset, found.bytes) == ("onnx", 17, path.stat().st_size)
    assert found.ops == {"Add": 3, "Tanh": 2, "If": 1, "com.microsoft.Gelu": 1}
    assert found.rules == {"Bias": 2}
    assert found.made == {"Bias": {"Add": 2}}
    assert found.signature.inputs == (Tensor("c", "bool", ()), Tensor("x", "float32", ("batch", "x_dim_1", 3)))
    assert found.signature.outputs == (Tensor("y", "float32", ("batch", "y_dim_1", 3)),)
    assert found.verified is None


def test_a_foreign_tflite_file(tmp_path: Path) -> None:
    path = tmp_path / "square.tflite"
    path.write_bytes(SQUARE_TFLITE)
    found = inspect(path)
    assert (found.format, found.opset, found.ops, found.rules) == ("tflite", None, {"MUL": 1}, {})
    assert found.signature == Signature((Tensor("x", "float32", (2,)),), (Tensor("y", "float32", (2,)),))
    assert found.notes == ()


def test_flex_operations_are_named_and_flagged(tmp_path: Path) -> None:
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(SQUARE_TFLITE)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = "FlexErf"
    model.subgraphs[0].tensors[0].shapeSignature = [-1]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    path = tmp_path / "flex.tflite"
    path.write_bytes(bytes(builder.Output()))
    found = inspect(path)
    assert found.ops == {"FlexErf": 1}
    assert found.signature.inputs[0].shape == ("x_dim_0",)
    assert found.notes == ("needs TensorFlow's Flex delegate for FlexErf: plain LiteRT refuses it",)


def test_the_rules_are_read_from_a_tflite_file_without_a_manifest(tmp_path: Path) -> None:
    path = tmp_path / "ours.tflite"
    path.write_bytes(with_metadata({"rules": {"MultiHead": 2, "Dense": 1}}))
    assert inspect(path).rules == {"MultiHead": 2, "Dense": 1}
    path.write_bytes(with_metadata({"else": 1}))
    with pytest.raises(InputError, match="damaged"):
        inspect(path)


def with_metadata(content: object) -> bytes:
    """The square, with metadata of ours."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(SQUARE_TFLITE)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    entry.name, entry.buffer = METADATA, len(model.buffers)
    buffer.data = np.frombuffer(json.dumps(content).encode(), np.uint8)
    model.metadata = [entry]
    model.buffers.append(buffer)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_what_the_manifest_knows_is_believed_while_it_is_fresh(tmp_path: Path) -> None:
    path = tmp_path / "ours.tflite"
    path.write_bytes(SQUARE_TFLITE)
    signature = Signature((Tensor("query", "float32", ("batch",)),), (Tensor("out", "float32", ("batch",)),))
    verified = {"passed": True, "feeds": 9, "required_tolerance": {"abs": 1e-7, "rel": 1e-6}}
    sha256 = file_sha256(path)
    chosen = Choice("heads", "apart", "one operation would be slower")
    Manifest("tflite", sha256, None, signature, {"Square": 1}, ("n",), (chosen,), {}, (), {}, verified, {}).write(path)
    found = inspect(path)
    assert found.choices == (chosen,)
    assert (found.signature, found.rules, found.verified, found.notes) == (signature, {"Square": 1}, verified, ("n",))
    path.write_bytes(SQUARE_TFLITE + b"\0")
    found = inspect(path)
    assert (found.signature.inputs[0].name, found.rules, found.verified) == ("x", {}, None)


def test_external_data_counts_and_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    onnx.save(branching_model(), str(path), save_as_external_data=True, location="w.data", size_threshold=0)
    assert inspect(path).bytes == path.stat().st_size + (tmp_path / "w.data").stat().st_size
    (tmp_path / "w.data").unlink()
    found = inspect(path)
    assert found.notes == ("its weights lie in 'w.data', which is not beside it: it will not load",)
    assert found.bytes == path.stat().st_size


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("m.onnx", None, "there is no file"),
        ("m.onnx", b"", "is empty"),
        ("m.tflite", b"", "is empty"),
        ("m.onnx", b"PK\x03\x04 a zip archive, say a .keras file", "truncated or not an ONNX file"),
        ("m.onnx", b"\x89HDF\r\n\x1a\n an old .h5 file", "truncated or not an ONNX file"),
        ("m.onnx", SQUARE_ONNX[:40], "truncated or not an ONNX file"),
        ("m.onnx", SQUARE_ONNX[:4], "truncated or not an ONNX file"),
        ("m.onnx", SQUARE_ONNX[:2], "names no operator set"),
        ("m.tflite", b"PK\x03\x04 a zip archive", "is not a TFLite file"),
        ("m.tflite", SQUARE_ONNX, "is not a TFLite file"),
        ("m.tflite", SQUARE_TFLITE[:8], "truncated or damaged"),
        ("m.tflite", SQUARE_TFLITE[:100], "truncated or damaged"),
        ("m.tflite", SQUARE_TFLITE[:200], "truncated or damaged"),
        ("m.h5", b"\x89HDF\r\n\x1a\n", "neither an .onnx nor a .tflite"),
    ],
)
def test_bad_files_are_sentences(tmp_path: Path, name: str, content: bytes | None, sentence: str) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=sentence) as caught:
        inspect(path)
    assert str(path) in caught.value.message


def test_a_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        inspect(tmp_path)


def test_no_truncation_of_a_real_file_is_taken_for_whole(tmp_path: Path) -> None:
    """Weights at the end: every cut, wherever it is, must be noticed."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(SQUARE_TFLITE)
    weights = schema.BufferT()
    weights.data = list(range(200))
    model.buffers.append(weights)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    whole = bytes(builder.Output())
    path = tmp_path / "cut.tflite"
    path.write_bytes(whole)
    assert inspect(path).ops == {"MUL": 1}
    for length in range(8, len(whole) - 8, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            inspect(path)


def test_a_name_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(branching_model().SerializeToString().replace(b"Gelu", b"Gel\xff"))
    with pytest.raises(InputError, match="names that are no text"):
        inspect(path)


def test_a_missing_package_has_the_pip_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(SQUARE_ONNX)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UnavailableError, match="needs the package 'onnx'") as caught:
        inspect(path)
    assert caught.value.hint == 'pip install "mh-edge[cpu]"'
