"""Times of operations by kind, rule and head: real ones of ONNX Runtime, and names as the converters write them."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from mh_edge.artifact import Choice
from mh_edge.commands.profile_tables import show_ops
from mh_edge.inspection import RULE_KEY
from mh_edge.profiling.operations import AROUND, MERGED, MIXED, NO_RULE, OUTSIDE, UNTOLD, Share, by_head, by_op, by_rule
from mh_edge.profiling.result import Latency, Row
from mh_edge.runtimes.cpu import CpuSession
from mh_edge.runtimes.placement import OpTime

APART = [
    Choice("heads", "Conv1D apart: head 0, 2", "too wide"),
    Choice("heads", "Conv1D apart: head 1", "another kernel"),
]
CALLS = 5


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpTime, ...]:
    """What ONNX Runtime's profile says of three convolution heads that stand side by side, and a product."""
    path = tmp_path_factory.mktemp("operations") / "heads.onnx"
    rng = np.random.default_rng(0)
    weights = {"k0": (4, 8, 3), "k1": (4, 8, 3), "k2": (4, 8, 3), "w": (6, 2)}
    held = [numpy_helper.from_array(rng.normal(size=size).astype(np.float32), name) for name, size in weights.items()]
    names = ["heads/Conv", "heads/Conv_1", "heads/Conv_2"]
    nodes = [helper.make_node("Conv", ["x", f"k{place}"], [f"c{place}"], name) for place, name in enumerate(names)]
    nodes.append(helper.make_node("Concat", ["c0", "c1", "c2"], ["c"], "heads/Concat", axis=1))
    for node in nodes:
        node.metadata_props.add(key=RULE_KEY, value="MultiHead")
    nodes.append(helper.make_node("MatMul", ["c", "w"], ["y"], "out/MatMul"))
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [1, 8, 8]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], held)
    onnx.save_model(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]), str(path))
    with CpuSession(path, threads=1) as session:
        return session.op_times({"x": rng.normal(size=(1, 8, 8)).astype(np.float32)}, CALLS)


def named(*nodes: tuple[str, str], rule: str = "") -> tuple[OpTime, ...]:
    """Operations of 1 ms by node and kind; the rule as .tflite files name it, or the one given."""
    return tuple(OpTime(node, op, "CPU", True, 1.0, rule) for node, op in nodes)


def told(shares: Sequence[Share]) -> dict[str, int]:
    return {one.name: one.count for one in shares}


def test_real_times_by_kind_and_rule(timed: tuple[OpTime, ...]) -> None:
    assert told(by_op(timed)).keys() >= {"Conv", "MatMul", "Concat"}
    assert told(by_op(timed))["Conv"] == 3
    assert told(by_rule(timed))["MultiHead"] == 4
    assert NO_RULE in told(by_rule(timed))
    slowest = [one.ms for one in by_op(timed)]
    assert slowest == sorted(slowest, reverse=True)


def test_real_times_by_head(timed: tuple[OpTime, ...]) -> None:
    found = by_head(timed, APART)
    assert told(found) | {OUTSIDE: 0} == {
        "heads/head 0": 1,
        "heads/head 1": 1,
        "heads/head 2": 1,
        f"heads: {AROUND}": 1,
        OUTSIDE: 0,
    }
    second = next(one.ms for one in timed if one.node.startswith("heads/Conv_1"))
    assert next(one.ms for one in found if one.name == "heads/head 2") == second  # as the choices number them
    assert told(by_head(timed))[f"heads: {UNTOLD}"] == 4


def test_heads_with_a_rule_of_their_own() -> None:
    nodes = ("lstms/lstm_1/LSTM", "LSTM"), ("lstms/lstm_1/Transpose", "Transpose"), ("lstms/lstm_10/LSTM", "LSTM")
    ops = (
        *named(*nodes, rule="LSTM"),
        *named(("lstms/lstm_2/LSTM", "LSTM"), rule="LSTM"),
        *named(("out/Gemm", "Gemm")),
    )
    ops += named(("lstms/Concat", "Concat"), rule="MultiHead")
    found = {"lstms/lstm_1": 2, "lstms/lstm_2": 1, "lstms/lstm_10": 1, f"lstms: {AROUND}": 1, OUTSIDE: 1}
    assert told(by_head(ops)) == found
    assert [one.name for one in by_head(ops)] == list(found)


def test_heads_of_tflite() -> None:
    inside = "model_1/convs_1/mh_edge.MultiHead"
    ops = named(
        (f"{inside}/conv1d_1_1/mh_edge.Conv1D/Conv2D1", "CONV_2D"),
        (f"{inside}/conv1d_1_1/mh_edge.Conv1D/Squeeze", "RESHAPE"),
        (f"{inside}/norm_1/add", "ADD"),
        (f"{inside}/concat", "CONCATENATION"),
        ("model_1/out_1/mh_edge.Dense/MatMul", "FULLY_CONNECTED"),
        ("", "DELEGATE"),
    )
    assert told(by_head(ops)) == {"convs/conv1d_1": 2, "convs/norm": 1, f"convs: {AROUND}": 1, OUTSIDE: 2}


@pytest.mark.parametrize(
    ("choice", "nodes", "rule"),
    [
        ("3 Conv1D heads as one convolution", [("h/Conv", "Conv"), ("h/Transpose", "Transpose")], "MultiHead"),
        ("2 heads as LSTM layers of 10 units", [("h/m_wide/LSTM", "LSTM"), ("h/m_wide/Squeeze", "Squeeze")], "LSTM"),
        ("2 LSTM heads in 1 loop", [("h/mh_edge.MultiHead/split", "SPLIT"), ("h/mh_edge.MultiHead/mul", "MUL")], ""),
    ],
)
def test_merged_heads_are_said_to_be(choice: str, nodes: list[tuple[str, str]], rule: str) -> None:
    assert told(by_head(named(*nodes, rule=rule), [Choice("h", choice, "")])) == {f"h: {MERGED}": 2}


def test_merged_heads_beside_others() -> None:
    nodes = ("h/Gemm", "Gemm"), ("h/Gemm_1", "Gemm"), ("h/Conv", "Conv"), ("h/Conv_1", "Conv")
    choices = [Choice("h", "2 Dense heads as one product", ""), Choice("h", "Conv1D apart: head 2, 3", "")]
    assert told(by_head(named(*nodes, rule="MultiHead"), choices)) == {f"h: {MIXED}": 4}
    lstm = named(("h/lstm/LSTM", "LSTM"), rule="LSTM")
    choices[1] = Choice("h", "LSTM apart: head 2", "")
    assert told(by_head(named(*nodes[:1], rule="MultiHead") + lstm, choices)) == {f"h: {MERGED}": 1, "h/lstm": 1}


def test_a_multi_head_in_another() -> None:
    node = "m_1/outer_1/mh_edge.MultiHead/inner_1/mh_edge.MultiHead/dense_1/mh_edge.Dense/MatMul"
    assert told(by_head(named((node, "FULLY_CONNECTED"), ("m_1/x/add", "ADD")))) == {"outer/inner": 1, OUTSIDE: 1}


def test_heads_that_differ_are_not_guessed() -> None:
    nodes = named(("h/Conv", "Conv"), ("h/Add", "Add"), ("h/MatMul", "MatMul"), ("h/Add_1", "Add"), rule="MultiHead")
    choices = [Choice("h", "Conv1D apart: head 0", ""), Choice("h", "Dense apart: head 1", "")]
    assert told(by_head(nodes, choices)) == {f"h: {UNTOLD}": 4}


def test_without_multi_head() -> None:
    assert by_head(named(("out/MatMul", "MatMul"))) == ()
    assert by_head(()) == by_op(()) == ()


SEGMENTS = st.sampled_from(["", "a", "b_1", "mh_edge.MultiHead", "mh_edge.Dense", "Conv", "Conv_1", "lstm_wide"])
OPS = st.lists(
    st.builds(
        OpTime,
        st.lists(SEGMENTS, max_size=4).map("/".join),
        st.sampled_from(["Conv", "MatMul"]),
        st.just("CPU"),
        st.booleans(),
        st.floats(0, 1e3),
        st.sampled_from(["", "MultiHead", "LSTM"]),
    )
)


@given(OPS, st.booleans())
def test_nothing_is_lost_or_counted_twice(ops: list[OpTime], chosen: bool) -> None:
    choices = [Choice("a", "Conv1D apart: head 0, 1", ""), Choice("b_1", "2 heads as one", "")] * chosen
    groupings: list[Callable[[list[OpTime]], tuple[Share, ...]]] = [by_op, by_rule, lambda ops: by_head(ops, choices)]
    for grouping in groupings:
        shares = grouping(ops)
        if not shares:
            assert not ops or grouping is groupings[2]
            continue
        assert sum(one.count for one in shares) == len(ops)
        assert sum(one.ms for one in shares) == pytest.approx(sum(one.ms for one in ops))
        assert sum(one.share for one in shares) == pytest.approx(1.0 if sum(one.ms for one in ops) else 0.0)


@pytest.mark.parametrize(
    ("median", "said"),
    [
        (10.0, "2 operations take 2.00 ms of a call of 10.0 ms; 8.00 ms pass between operations."),
        (1.0, "2 operations take 2.00 ms of a call, timed apart, which slows them down: a whole call without that"),
    ],
)
def test_table(median: float, said: str, tmp_path: Path) -> None:
    ops = named(("h/lstm_1/LSTM", "LSTM"), ("h/Concat", "Concat"), rule="MultiHead")
    latency = Latency(median, None, None, (median, median), (), 5, True)
    console = Console(file=io.StringIO(), width=400)
    show_ops(console, Row(str(tmp_path / "m.onnx"), "cpu", latency=latency, ops=ops))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert said in shown
    assert [line.split() for line in shown.splitlines() if "LSTM" in line] == [["LSTM", "1.00", "ms", "50%", "1"]]
    assert "MultiHead   2.00 ms   100%    2" in shown


def test_what_is_below_the_tick_of_the_clock_is_not_nothing() -> None:
    shares = [Share("a", 0.0, 0.0, 1), Share("b", 0.0009, 0.0, 9), Share("c", 0.0012, 0.0, 9)]
    assert [one.time for one in shares] == ["<1 µs", "<1 µs each", "1.20 µs"]
