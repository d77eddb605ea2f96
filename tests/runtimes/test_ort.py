"""ONNX Runtime: where nodes went and why, how long they take, which wheels make it up, what CUDA lacks."""

from __future__ import annotations

import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, parser, save_model

from mh_edge.errors import InputError, UnavailableError, UsageError
from mh_edge.runtimes import adapter
from mh_edge.runtimes.base import Session
from mh_edge.runtimes.coreml import CoreMlSession
from mh_edge.runtimes.cpu import CpuSession
from mh_edge.runtimes.cuda import BLOCKING, CudaSession
from mh_edge.runtimes.nnapi import NnapiSession
from mh_edge.runtimes.ort import nvidia, wheels
from mh_edge.runtimes.ort import session as ort_session
from mh_edge.runtimes.ort.contents import TO_FLOAT16, files_beside, precision
from mh_edge.runtimes.ort.placement import PROOF, Assigned, edges_of, overheard, placed, reasons_in
from mh_edge.runtimes.ort.session import OrtSession
from mh_edge.runtimes.ort.times import op_times
from mh_edge.runtimes.placement import Fallback
from mh_edge.runtimes.tensorrt import TensorRtSession
from mh_edge.runtimes.xnnpack_ort import XnnpackOrtSession
from runtimes.contract import file, require_right, rows

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


# ---- wheels


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*names: str) -> None:
        monkeypatch.setattr(wheels, "version", lambda name: "1.31.1" if name in names else None)
        monkeypatch.setattr(wheels, "_brings_the_package", lambda name: True)

    return install


def unavailable(call: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(UnavailableError) as caught:
        call()
    return caught.value.message, caught.value.hint


def test_the_wheel_here_is_one() -> None:
    assert wheels.wheels() == ("onnxruntime",)


@pytest.mark.parametrize("other", ["onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"])
def test_wheels_that_overwrite_each_other(other: str, brought: Callable[..., None]) -> None:
    brought("onnxruntime", other)
    assert unavailable(CpuSession.load) == (
        f"onnxruntime and {other} are both installed and overwrite each other's files.",
        f'pip uninstall -y onnxruntime {other}; pip install "mh-edge[cpu]"',
    )
    assert unavailable(CudaSession.load)[1].endswith('; pip install "mh-edge[cuda]"')


def test_a_plugin_with_the_name_of_an_old_wheel_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"onnxruntime": ["onnxruntime/__init__.py"], "onnxruntime-qnn": ["onnxruntime_qnn/__init__.py"]}
    monkeypatch.setattr(wheels, "version", lambda name: "2.7" if name in files else None)
    monkeypatch.setattr(wheels.metadata, "files", lambda name: [Path(one) for one in files[name]])
    assert wheels.wheels() == ("onnxruntime",)


def test_what_an_uninstalled_second_wheel_leaves(brought: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    brought("onnxruntime")
    monkeypatch.setattr(wheels, "require", lambda *names: types.ModuleType("onnxruntime"))
    assert unavailable(CpuSession.load) == (
        "what is installed of onnxruntime has no InferenceSession: files of it are missing.",
        'pip uninstall -y onnxruntime; pip install "mh-edge[cpu]" --force-reinstall',
    )


def test_a_wheel_that_cannot_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*names: str) -> None:
        raise ImportError("libfoo.so: cannot open shared object file\nmore")

    monkeypatch.setattr(wheels, "require", broken)
    assert unavailable(CpuSession.load) == (
        "onnxruntime cannot be imported: libfoo.so: cannot open shared object file",
        'pip install "mh-edge[cpu]" --force-reinstall',
    )


@pytest.mark.parametrize(
    ("session", "fix"),
    [
        (CudaSession, 'pip uninstall -y onnxruntime; pip install "mh-edge[cuda]"'),
        (TensorRtSession, 'pip uninstall -y onnxruntime; pip install "mh-edge[cuda]"'),
        (NnapiSession, "profile it on a phone: --device adb; here, mh-edge inspect --delegates forecasts it"),
        (
            XnnpackOrtSession,
            "build ONNX Runtime with --use_xnnpack (https://onnxruntime.ai/docs/build/eps.html#xnnpack)",
        ),
    ],
)
def test_a_provider_that_this_build_has_not(session: type[OrtSession], fix: str) -> None:
    reason = f"onnxruntime {onnxruntime.__version__} is built without the {session.provider}."
    assert unavailable(session.load) == (reason, fix)


@pytest.mark.parametrize(("platform", "fix"), [("linux", "profile it on a Mac"), ("darwin", "pip uninstall -y onnx")])
def test_core_ml_wants_a_mac(platform: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert CoreMlSession.install().startswith(fix)


# ---- what providers are asked for


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What sessions ask of ONNX Runtime, which opens them on the CPU and says that it did as asked."""
    given: dict[str, Any] = {}
    real = onnxruntime.InferenceSession

    class Made:
        def __init__(self, path: str, options: Any, providers: list[Any], **more: Any) -> None:
            given.update(providers=providers, options=options, **more)
            self._session = real(path, options, providers=[CPU])

        def get_providers(self) -> list[str]:
            return [name for name, _ in given["providers"]]

        def __getattr__(self, name: str) -> Any:
            return getattr(self._session, name)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Made)
    for session in (CudaSession, TensorRtSession, CoreMlSession, NnapiSession, XnnpackOrtSession):
        monkeypatch.setattr(session, "load", classmethod(lambda cls: "1.31.1"))
    return given


@pytest.mark.parametrize(
    ("device", "settings", "providers", "precision"),
    [
        ("cuda", {}, [("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})], "float32"),
        (
            "cuda",
            {"use_tf32": "1", "device_id": "1"},
            [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "1"})],
            "float16",
        ),
        (
            "tensorrt",
            {"trt_fp16_enable": "1"},
            [
                ("TensorrtExecutionProvider", {"device_id": "0", "trt_fp16_enable": "1"}),
                ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"}),
            ],
            "float16",
        ),
        ("coreml", {}, [("CoreMLExecutionProvider", {"ModelFormat": "MLProgram"})], "float32"),
        (
            "coreml",
            {"ModelFormat": "NeuralNetwork"},
            [("CoreMLExecutionProvider", {"ModelFormat": "NeuralNetwork"})],
            "float16",
        ),
        ("nnapi", {"partitioning_stop_ops": "Softmax"}, [("NnapiExecutionProvider", {})], "float32"),
        ("xnnpack-ort", {}, [("XnnpackExecutionProvider", {"intra_op_num_threads": "3"})], "float32"),
    ],
)
def test_settings_become_options_of_the_provider(
    device: str, settings: dict[str, str], providers: list[Any], precision: str, asked: dict[str, Any]
) -> None:
    session: type[Session] = adapter(device)
    with session(file(device, "free"), threads=3, sizes={"batch": 2}, settings=settings) as opened:
        assert asked["providers"] == providers
        assert asked["enable_fallback"] == 0
        assert opened.precision == precision
        fixed = device in ("tensorrt", "coreml", "nnapi")
        assert opened.signature.inputs[0].shape == (2 if fixed else "batch", 16)
        options = asked["options"]
        assert options.intra_op_num_threads == (1 if device == "xnnpack-ort" else 3)
        if device == "nnapi":
            assert options.get_session_config_entry("ep.nnapi.partitioning_stop_ops") == "Softmax"
    with pytest.raises(UsageError, match=f"the device '{device}' has no setting 'fp16'"):
        session(file(device), settings={"fp16": "1"})


# ---- CUDA without a GPU: in the memory of the CPU


class BoundSession(CudaSession):
    """The bound inputs and outputs of CUDA, on the CPU."""

    provider, memory = CPU, "cpu"

    @classmethod
    def load(cls) -> str:
        return CpuSession.load()

    def _providers(self) -> list[tuple[str, dict[str, str]]]:
        return [(CPU, {})]


@pytest.mark.parametrize("settings", [{}, {"enable_cuda_graph": "1"}])
def test_bound_inputs_give_the_same(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BLOCKING, "1")
    with BoundSession(file("cpu", "free"), settings=settings) as session:
        for begin, count in ((0, 2), (2, 2), (0, 5), (1, 2), (4, 1)):
            require_right(session, begin, count)
        feeds, expected = rows(3)
        bound = session._bound(feeds)
        bound.call()
        np.testing.assert_allclose(bound.outputs()[0], expected, atol=1e-6)
        assert len(session._graphs) == (3 if settings else 0)  # one for each shape
        session.prepared(feeds)()
        assert session.placement().whole
        assert len(session.op_times(feeds, 1)) == 4
        assert "no copies" in session.notes[0]


@pytest.mark.parametrize(
    ("log", "reason", "fix"),
    [
        (
            "FAIL : Failed to load library /x/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot "
            "open shared object file: No such file or directory\n",
            "the library libcublasLt.so.13 is missing.",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            "with error: libcudnn.so.9: cannot open shared object file: No such file or directory",
            "the library libcudnn.so.9 is missing.",
            'pip install "onnxruntime-gpu[cuda,cudnn]"',
        ),
        (
            "with error: libnvinfer.so.10: cannot open shared object file: No such file or directory",
            "the library libnvinfer.so.10 is missing.",
            'pip install "tensorrt-cu13>=10,<11"',
        ),
        (
            "/onnxruntime_src/x.cc:146 CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=vm",
            "CUDA says: no CUDA-capable device is detected.",
            "nvidia-smi shows what the driver knows of the GPU",
        ),
        ("\n something new\nmore", "ONNX Runtime did not start it: something new", nvidia.INSTALL),
        ("", "ONNX Runtime did not start it: without a word", nvidia.INSTALL),
    ],
)
def test_what_onnx_runtime_says_of_cuda_is_a_reason_and_a_line(log: str, reason: str, fix: str) -> None:
    error = nvidia.why(log)
    assert (error.message, error.hint) == (reason, fix)


class Driver:
    """libcuda: the version that it runs, what starting it gives, how many GPUs there are."""

    def __init__(self, version: int = 13000, start: int = 0, count: int = 1) -> None:
        self._version, self._start, self._count = version, start, count

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802 - the name of the driver's function
        version._obj.value = self._version
        return 0

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self._start + flags

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        count._obj.value = self._count
        return 0


@pytest.mark.parametrize(
    ("driver", "reason", "fix"),
    [
        (Driver(12020), "the NVIDIA driver runs CUDA 12.2, this onnxruntime wants 13.", "NVIDIA driver 580 or newer"),
        (Driver(start=100), "the NVIDIA driver finds no GPU.", "--gpus all"),
        (Driver(count=0), "the NVIDIA driver finds no GPU.", "--gpus all"),
        (Driver(start=803), "the NVIDIA driver does not start: CUDA error 803.", "nvidia-smi"),
    ],
)
def test_what_the_driver_says(driver: Driver, reason: str, fix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", lambda: driver)
    message, hint = unavailable(lambda: nvidia.require_gpu(13))
    assert message == reason
    assert fix in hint


def test_a_driver_that_runs_it_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvidia, "driver", Driver)
    nvidia.require_gpu(13)
    nvidia.require_gpu(12)


def test_no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(nvidia, "driver", absent)
    message, hint = unavailable(lambda: nvidia.require_gpu(13))
    assert message == "there is no NVIDIA driver here (libcuda.so.1: cannot open shared object file)."
    assert hint.startswith("install the NVIDIA driver 580 or newer")


def test_a_session_that_is_not_on_the_gpu_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Elsewhere(BoundSession):
        provider = "CUDAExecutionProvider"

    with pytest.raises(UnavailableError, match="ONNX Runtime did not start it"):
        Elsewhere(file("cpu"))
