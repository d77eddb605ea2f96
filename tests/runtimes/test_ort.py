"""ONNX Runtime: where nodes went and why, how long they take, what a file holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, parser, save_model

from mh_edge.errors import InputError
from mh_edge.runtimes.cpu import CpuSession
from mh_edge.runtimes.ort import session as ort_session
from mh_edge.runtimes.ort.contents import TO_FLOAT16, files_beside, precision
from mh_edge.runtimes.ort.placement import PROOF, Assigned, edges_of, overheard, placed, reasons_in
from mh_edge.runtimes.ort.times import op_times
from mh_edge.runtimes.placement import Fallback
from runtimes.contract import file, rows

LOOP = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2] x, int64 n, bool c) => (float[2] y) {
  y = Loop (n, c, x) <body = b (int64 i, bool go, float[2] a) => (bool on, float[2] o) {
    on = Identity(go)
    t = Mul(a, a)
    u = Exp(t)
    o = Tanh(u) }>
}"""

CPU, OTHER = "CPUExecutionProvider", "OtherExecutionProvider"


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    model = parser.parse_model(LOOP)
    model.graph.node[0].name = "heads/Loop"
    model.graph.node[0].metadata_props.add(key="mh_edge.rule", value="MultiHead")
    path = tmp_path / "loop.onnx"
    save_model(model, path)
    return path


def nodes(*given: tuple[str, str], each: bool = True) -> list[Assigned]:
    """Nodes named a, b, c, ... of (operation, provider), each recorded by itself or all together."""
    return [Assigned("abcdefgh"[n], op, where, n if each else 0) for n, (op, where) in enumerate(given)]


# ---- placement


def test_the_record_holds_the_nodes_of_bodies(loop: Path) -> None:
    with CpuSession(loop) as session:
        session.run({"x": np.ones(2, "float32"), "n": np.array(3), "c": np.array(True)})
        found = session.placement()
    assert (found.nodes, found.on_device, found.partitions, found.proof) == (5, 5, 1, PROOF)


def test_without_a_record_the_profile_of_a_run_tells(loop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_session, "recorded", lambda session: None)
    with CpuSession(loop) as session:
        session.run({"x": np.ones(2, "float32"), "n": np.array(3), "c": np.array(True)})
        found = session.placement()
    assert (found.nodes, found.on_device, found.partitions) == (5, 5, 1)
    assert found.proof == "ONNX Runtime's profile"


def test_what_fell_back_is_grouped_by_operation_and_reason() -> None:
    given = nodes(("MatMul", OTHER), ("Loop", CPU), ("Where", CPU), ("Loop", CPU), ("MatMul", OTHER))
    found = placed(
        given, OTHER, "proof", lambda: [("a", "b"), ("b", "e")], lambda: {"b": "no kernel", "d": "no kernel"}
    )
    assert (found.nodes, found.on_device, found.partitions, found.whole) == (5, 2, 2, False)
    assert found.fallbacks == (
        Fallback("Loop", 2, ("b", "d"), CPU, "no kernel"),
        Fallback("Where", 1, ("c",), CPU, ""),
    )


@pytest.mark.parametrize(
    ("edges", "partitions"),
    [
        ([("a", "b"), ("b", "d")], 1),
        ([("a", "c"), ("c", "b"), ("b", "d")], 2),
        ([("a", "c"), ("a", "b"), ("c", "b"), ("b", "d"), ("a", "d")], 2),  # a residual goes around what fell back
        ([("a", "c"), ("c", "d")], 2),  # b runs with a
        ([("a", "c"), ("c", "b"), ("c", "d")], 2),
        ([], 1),
    ],
)
def test_partitions_are_as_few_as_what_fell_back_allows(edges: list[tuple[str, str]], partitions: int) -> None:
    given = nodes(("A", OTHER), ("B", OTHER), ("C", CPU), ("D", OTHER))
    assert placed(given, OTHER, "proof", lambda: edges).partitions == partitions


def test_a_provider_that_compiles_says_its_partitions_itself() -> None:
    given = [*nodes(("A", OTHER), ("B", OTHER), each=False), Assigned("x", "X", CPU, 1), Assigned("y", "Y", OTHER, 2)]
    assert placed(given, OTHER, "proof").partitions == 2
    assert placed([node for node in given if node.provider == OTHER], OTHER, "proof").partitions == 2


def test_nothing_on_the_device_is_no_partition() -> None:
    found = placed(nodes(("A", CPU)), OTHER, "proof")
    assert (found.on_device, found.partitions, found.whole) == (0, 0, False)
    assert placed([], OTHER, "proof").whole, "where no node is left to run, none ran elsewhere"


def test_edges_are_those_of_the_graph_and_of_its_bodies(loop: Path, tmp_path: Path) -> None:
    model = parser.parse_model(LOOP)
    for node, name in zip(model.graph.node[0].attribute[0].g.node, "ITES", strict=True):
        node.name = name
    save_model(model, tmp_path / "named.onnx")
    assert list(edges_of(tmp_path / "named.onnx")) == [("T", "E"), ("E", "S")]


def test_reasons_are_read_from_the_log() -> None:
    log = (
        "[I:onnxruntime:, cuda_execution_provider.cc:2879 GetCapability] CUDA kernel not found in registries for Op "
        "type: Shape node name: sym_size\n"
        "[W:onnxruntime:Default, fallback_cpu_capability.cc:135 GetCpuPreferredNodes] Force fallback to CPU execution "
        "for node: Slice_63\n"
        "[I:onnxruntime:, x.cc:1] Force fallback to CPU execution for node: Gather_5 because the CPU execution path is "
        "deemed faster than overhead involved with execution on other EPs capable of executing this node\n"
    )
    assert reasons_in(log) == {
        "sym_size": "it has no kernel for it",
        "Slice_63": "ONNX Runtime keeps arithmetic on shapes on the CPU",
        "Gather_5": "ONNX Runtime keeps arithmetic on shapes on the CPU",
    }


def test_what_a_provider_logs_is_overheard(capfd: pytest.CaptureFixture[str]) -> None:
    with CpuSession(file("cpu")) as session:
        options = session._options(onnxruntime)
        options.log_severity_level = 0
        with overheard() as log:
            session._made(onnxruntime, options)
            assert "Initializing session" in log()
        assert "Initializing session" not in capfd.readouterr().err
        assert session._reasons() == {}


# ---- times


def event(name: str, ts: int, dur: int, op: str, index: int, provider: str = CPU) -> dict[str, Any]:
    args = {"op_name": op, "node_index": str(index), "provider": provider}
    return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}


def run(ts: int, dur: int = 999) -> dict[str, Any]:
    return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur}


def test_times_are_means_of_the_faster_half_of_the_last_calls() -> None:
    events = [run(0, 5), event("m", 1, 900, "MatMul", 0)]
    for start, lasted, cost in ((1000, 600, 500), (2000, 100, 30), (3000, 90, 10), (4000, 700, 600)):
        events += [
            run(start, lasted),
            event("m", start, cost, "MatMul", 0, OTHER),
            event("Add_1", start + cost, 5, "Add", 1),
        ]
    matmul, add = op_times(events, OTHER, 4, {"m": "Dense"})
    assert (matmul.node, matmul.op, matmul.where, matmul.on_device, matmul.rule) == (
        "m",
        "MatMul",
        OTHER,
        True,
        "Dense",
    )
    assert matmul.ms == pytest.approx(0.02)
    assert (add.node, add.where, add.on_device, add.rule) == ("", CPU, False, "")  # ONNX Runtime made its name
    assert add.ms == pytest.approx(0.005)


def test_bodies_do_not_count_twice() -> None:
    events = [
        run(0), event("l", 0, 100, "Loop", 0),
        event("a", 10, 20, "Mul", 0), event("if", 30, 40, "If", 1), event("b", 30, 30, "Exp", 0),
        event("after", 100, 7, "Tanh", 3),
    ]  # fmt: skip
    found = {one.node: round(1e3 * one.ms) for one in op_times(events, CPU, 1, {})}
    assert found == {"l": 40, "a": 20, "if": 10, "b": 30, "after": 7}


def test_a_fused_node_has_the_rule_of_the_node_that_it_is_named_after() -> None:
    names = (
        "heads/MatMul_fused",
        "Gelu",
        "fused heads/MatMul",
        "InsertedPrecisionFreeCast_heads/MatMul:0",
        "a/Add_1",
        "a/Add_10",
    )
    events = [run(0), *(event(name, n, 1, "Any", n) for n, name in enumerate(names))]
    rules = {"heads/MatMul": "MultiHead", "heads": "", "a/Add_1": "Add", "": "Nothing"}
    assert [one.rule for one in op_times(events, CPU, 1, rules)] == [
        "MultiHead",
        "",
        "MultiHead",
        "MultiHead",
        "Add",
        "",
    ]


def test_rules_come_from_the_file_and_reach_into_bodies(loop: Path) -> None:
    with CpuSession(loop) as session:
        times = session.op_times({"x": np.ones(2, "float32"), "n": np.array(50), "c": np.array(True)}, 2)
    assert {one.op for one in times} == {"Loop", "Identity", "Mul", "Exp", "Tanh"}
    assert {one.op: one.rule for one in times}["Loop"] == "MultiHead"
    with CpuSession(file("cpu")) as session:
        assert [one.rule for one in session.op_times(rows()[0], 1)] == ["Dense", "Dense", "", ""]


def test_times_of_feeds_that_do_not_fit() -> None:
    with CpuSession(file("cpu")) as session, pytest.raises(InputError, match="no array for input 'x'"):
        session.op_times({}, 1)


# ---- numbers


def onnx_file(path: Path, op: str, **attributes: Any) -> Path:
    inputs = ["x", "scale", "zero"] if op == "QuantizeLinear" else ["x"]
    made = [helper.make_node(op, inputs, ["q"], name="n", **attributes)]
    if op == "Cast":
        made.append(helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT))
    elif op == "QuantizeLinear":
        made.append(helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"]))
    else:
        made.append(helper.make_node("Identity", ["q"], ["y"]))
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]), helper.make_tensor("zero", TensorProto.INT8, [], [0])
    ]  # fmt: skip
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(made, "g", value[:1], value[1:], constants)
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("op", "attributes", "precision"),
    [
        ("Relu", {}, "float32"),
        ("Cast", {"to": TensorProto.DOUBLE}, "float32"),
        ("Cast", {"to": TensorProto.FLOAT16}, "float16"),
        ("QuantizeLinear", {}, "integers"),
    ],
)
def test_the_file_says_in_which_numbers_it_computes(
    op: str, attributes: dict[str, Any], precision: str, tmp_path: Path
) -> None:
    with CpuSession(onnx_file(tmp_path / "m.onnx", op, **attributes)) as session:
        assert session.precision == precision


BODY = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[2] x, bool c) => (float[2] y) {
  y = If (c) <then_branch = t () => (float[2] o) { OP }, else_branch = e () => (float[2] o) { o = Identity(x) }>
}"""
ROUNDED = "q = Cast<to = 10>(x) o = Cast<to = 1>(q)"
FUNCTION = """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
g (float[2] x, bool c) => (float[2] y) { y = own.f(x) }
<opset_import: ["" : 17], domain: "own">
f (x) => (o) { OP }"""


@pytest.mark.parametrize("text", [BODY, FUNCTION])
def test_bodies_and_functions_are_looked_into(text: str, tmp_path: Path) -> None:
    for op, expected in ((ROUNDED, "float16"), ("o = Relu(x)", "float32")):
        save_model(parser.parse_model(text.replace("OP", op)), tmp_path / "m.onnx")
        assert precision(tmp_path / "m.onnx") == expected


def test_names_say_nothing_of_the_numbers(tmp_path: Path) -> None:
    name = "preQLinearBlock/MatMulNBits/Quantize"
    node = helper.make_node("Relu", ["x"], ["y"], name=name, doc_string=name + TO_FLOAT16.decode(), QLinear=name)
    graph = helper.make_graph([node], name, *([helper.make_tensor_value_info(k, 1, [2])] for k in "xy"))
    save_model(helper.make_model(graph), tmp_path / "m.onnx")
    assert precision(tmp_path / "m.onnx") == "float32"


def test_the_files_that_hold_its_weights(tmp_path: Path) -> None:
    path, weights = tmp_path / "m.onnx", [helper.make_tensor(k, 1, [2], bytes(8), raw=True) for k in "ab"]
    nodes = [helper.make_node("Add", ["x", "a"], ["z"]), helper.make_node("Add", ["z", "b"], ["y"])]
    graph = helper.make_graph(nodes, "g", *([helper.make_tensor_value_info(k, 1, [2])] for k in "xy"), weights)
    model = helper.make_model(graph)
    save_model(model, path, save_as_external_data=True, size_threshold=0, location="ö.data")
    assert files_beside(path) == (tmp_path / "ö.data",)
    whole = path.read_bytes()
    (tmp_path / "ö.data").unlink()
    assert files_beside(path) == ()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert files_beside(path) == ()
    assert files_beside(tmp_path / "absent.onnx") == ()


def test_weights_say_nothing_of_the_numbers_and_neither_does_what_is_no_model(tmp_path: Path) -> None:
    weights = helper.make_tensor("W", TensorProto.INT8, [64], (b"MatMulNBits" + TO_FLOAT16).ljust(64), raw=True)
    value = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", value, value, [weights])
    save_model(helper.make_model(graph, doc_string="QLinear"), tmp_path / "named.onnx")
    assert precision(tmp_path / "named.onnx") == "float32"
    whole = onnx_file(tmp_path / "whole.onnx", "QuantizeLinear").read_bytes()
    for size in range(1, len(whole)):
        (tmp_path / "cut.onnx").write_bytes(whole[:size])
        assert precision(tmp_path / "cut.onnx") in ("float32", "integers")
