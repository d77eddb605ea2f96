"""Small .onnx models as others write them: attention with every kind of mask, loops, branches, recurrent layers,
tables, weights that are shared or transposed, operations without a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

BATCH, STEPS, WIDTH, HEADS = 4, 5, 64, 4


@dataclass(frozen=True)
class Case:
    """A model and what to feed it."""

    model: onnx.ModelProto
    feeds: Mapping[str, np.ndarray]

    def save(self, path: Path) -> Path:
        onnx.checker.check_model(self.model, full_check=True)
        path.write_bytes(self.model.SerializeToString(deterministic=True))
        return path


class Builder:
    """Collects the operations of one model; every weight is drawn from one seed, times `scale`."""

    def __init__(self, opset: int = 17, scale: float = 0.15) -> None:
        self.random = np.random.default_rng(0)
        self.opset, self.scale = opset, scale
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.feeds: dict[str, np.ndarray] = {}

    def feed(self, name: str, value: np.ndarray, free: str | None = "batch") -> str:
        shape = [free or value.shape[0], *value.shape[1:]]
        self.inputs.append(helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), shape))
        self.feeds[name] = value
        return name

    def numbers(self, *shape: int) -> np.ndarray:
        return self.random.normal(size=shape).astype(np.float32)

    def weight(self, name: str, *shape: int) -> str:
        return self.constant(name, self.numbers(*shape) * np.float32(self.scale))

    def constant(self, name: str, value: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def add(self, op: str, inputs: Sequence[str], output: str, name: str | None = None, **attributes: object) -> str:
        domain = "com.microsoft" if op.startswith("com.microsoft.") else ""
        self.nodes.append(
            helper.make_node(
                op.rpartition(".")[2], inputs, [output], output if name is None else name, domain=domain, **attributes
            )
        )
        return output

    def dense(self, x: str, name: str, inputs: int, outputs: int) -> str:
        product = self.add("MatMul", [x, self.weight(f"{name}/kernel", inputs, outputs)], f"{name}/MatMul")
        return self.add("Add", [product, self.weight(f"{name}/bias", outputs)], f"{name}/Add")

    def case(self, outputs: Mapping[str, int]) -> Case:
        """outputs: name -> rank."""
        known = {node.domain for node in self.nodes}
        graph = helper.make_graph(
            self.nodes,
            "small",
            self.inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in outputs.items()],
            self.constants,
        )
        opsets = [helper.make_opsetid("", self.opset)]
        opsets += [helper.make_opsetid("com.microsoft", 1)] if "com.microsoft" in known else []
        return Case(helper.make_model(graph, opset_imports=opsets, ir_version=10), self.feeds)


def valid_steps() -> np.ndarray:
    """Rows seen in part, with a hole, wholly, and not at all."""
    valid = np.ones((BATCH, STEPS), bool)
    valid[0, 3:], valid[1, 1], valid[3] = False, False, False
    return valid


def attention(form: str = "sum", mask: float = -10000.0, opset: int = 17) -> Case:
    """x (batch, 5, 64), valid -> x + attention(x): the output of every step.

    form: "sum" of scores and a mask from valid; "where" instead of a sum; "given", the mask being an input of the
    model; "fused" in ONNX's Attention; "multihead" in com.microsoft's; "exp" for a softmax written out.
    """
    b = Builder(opset)
    x = b.feed("x", b.numbers(BATCH, STEPS, WIDTH))
    valid = valid_steps()
    amounts = np.where(valid, np.float32(0), np.float32(mask))[:, None, None, :]
    q, k, v = (b.dense(x, f"attention/{name}", WIDTH, WIDTH) for name in "qkv")
    if form == "given":
        additive = b.feed("mask", amounts)
    else:
        b.feed("valid", valid)
        b.constant("axes", np.array([1, 2]))
        b.constant("nothing", np.float32(0))
        b.constant("hidden", np.float32(mask))
        seen = b.add("Unsqueeze", ["valid", "axes"], "attention/seen")
        additive = b.add("Where", [seen, "nothing", "hidden"], "attention/mask") if form != "where" else seen
    if form == "fused":
        b.constant("full", np.array([1, 1, STEPS, 1]))
        additive = b.add("Expand", [additive, "full"], "attention/full")
        joined = b.add("Attention", [q, k, v, additive], "attention/joined", q_num_heads=HEADS, kv_num_heads=HEADS)
    elif form == "multihead":
        b.constant("full", np.array([1, HEADS, STEPS, 1]))
        additive = b.add("Expand", [additive, "full"], "attention/full")
        joined = b.add(
            "com.microsoft.MultiHeadAttention", [q, k, v, "", "", additive], "attention/joined", num_heads=HEADS
        )
    else:
        joined = _written_out(b, q, k, v, additive, form)
    y = b.dense(joined, "attention/o", WIDTH, WIDTH)
    b.constant("gamma", np.ones(WIDTH, np.float32))
    total = b.add("Add", [x, y], "total")
    b.add("LayerNormalization", [total, "gamma"], "y")
    return b.case({"y": 3})


def _written_out(b: Builder, q: str, k: str, v: str, additive: str, form: str) -> str:
    b.constant("heads", np.array([0, 0, HEADS, WIDTH // HEADS]))
    b.constant("whole", np.array([0, 0, WIDTH]))
    b.constant("factor", np.float32((WIDTH // HEADS) ** -0.5))
    q, k, v = (b.add("Reshape", [name, "heads"], f"{name}/cut") for name in (q, k, v))
    q, v = (b.add("Transpose", [name], f"{name}/t", perm=[0, 2, 1, 3]) for name in (q, v))
    k = b.add("Transpose", [k], f"{k}/t", perm=[0, 2, 3, 1])
    scores = b.add("MatMul", [q, k], "attention/scores")
    scores = b.add("Mul", [scores, "factor"], "attention/scaled")
    if form == "where":
        masked = b.add("Where", [additive, scores, "hidden"], "attention/masked")
    else:
        masked = b.add("Add", [scores, additive], "attention/masked")
    if form == "exp":
        b.constant("last", np.array([-1]))
        top = b.add("ReduceMax", [masked, "last"] if b.opset >= 18 else [masked], "attention/top",
                    **({} if b.opset >= 18 else {"axes": [-1]}))  # fmt: skip
        powers = b.add("Exp", [b.add("Sub", [masked, top], "attention/less")], "attention/exp")
        weights = b.add("Div", [powers, b.add("ReduceSum", [powers, "last"], "attention/sum")], "attention/weights")
    else:
        weights = b.add("Softmax", [masked], "attention/weights", axis=-1)
    mixed = b.add("MatMul", [weights, v], "attention/mixed")
    return b.add("Reshape", [b.add("Transpose", [mixed], "attention/back", perm=[0, 2, 1, 3]), "whole"], "joined")


def layers(opset: int = 17, sizes: Sequence[int] = (64, 64, 64)) -> Case:
    """x -> products with a Relu after each, without names."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(3, 7, sizes[0]))
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        x = b.add("Relu", [b.dense(x, f"d{index}", inputs, outputs)], f"relu{index}", name="")
    for node in b.nodes:
        node.name = ""
    return b.case({x: 3})


def tied(opset: int = 17) -> Case:
    """Two Gemm and a MatMul that read one weight, transposed and not, with alpha and beta."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(3, 64))
    b.weight("shared", 64, 64)
    b.weight("bias", 64)
    x = b.add("Gemm", [x, "shared", "bias"], "first", transB=1, alpha=0.5, beta=2.0)
    x = b.add("Gemm", [x, "shared"], "second", transB=1)
    x = b.add("MatMul", [x, "shared"], "third")
    return b.case({x: 2})


def loop(opset: int = 17, inside: bool = True) -> Case:
    """x -> three times x W + u, tanh; W and u, a result of the main graph, are read from the body. inside: whether the
    loop holds W itself.
    """
    b = Builder(opset)
    x = b.feed("x", b.numbers(2, 64), free=None)
    u = b.dense(x, "before", 64, 64)
    w = b.weight("recurrent", 64, 64)
    held = [b.constants.pop()] if inside else []
    b.constant("times", np.array(3))
    real, flag = TensorProto.FLOAT, TensorProto.BOOL
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["s", w], ["sw"], "step/MatMul"),
            helper.make_node("Add", ["sw", u], ["sum"], "step/Add"),
            helper.make_node("Tanh", ["sum"], ["next"], "step/Tanh"),
            helper.make_node("Identity", ["go"], ["on"], "step/Identity"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", flag, []),
            helper.make_tensor_value_info("s", real, [2, 64]),
        ],
        [helper.make_tensor_value_info("on", flag, []), helper.make_tensor_value_info("next", real, [2, 64])],
        held,
    )
    looped = b.add("Loop", ["times", "", x], "looped", body=body)
    return b.case({b.dense(looped, "after", 64, 64): 2})


def branch(opset: int = 17) -> Case:
    """x, flag -> one of two products, in the branches of an If."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(2, 64), free=None)
    flag = b.feed("flag", np.array([True]), free=None)
    hidden = b.dense(x, "before", 64, 64)

    def part(name: str) -> onnx.GraphProto:
        b.weight(f"{name}/kernel", 64, 64)
        node = helper.make_node("MatMul", [hidden, f"{name}/kernel"], [f"{name}/y"], f"{name}/MatMul")
        value = helper.make_tensor_value_info(f"{name}/y", TensorProto.FLOAT, [2, 64])
        return helper.make_graph([node], name, [], [value], [b.constants.pop()])

    b.add("If", [flag], "chosen", then_branch=part("then"), else_branch=part("else"))
    return b.case({b.dense("chosen", "after", 64, 64): 2})


def lstm(units: int, directions: int = 1, states: bool = False, peepholes: bool = False, opset: int = 17) -> Case:
    """x (steps, batch, 24) -> LSTM, with lengths and initial states where asked for."""
    b = Builder(opset)
    names = [b.feed("x", b.numbers(6, 3, 24), free=None)]
    names += [b.weight("W", directions, 4 * units, 24), b.weight("R", directions, 4 * units, units)]
    names.append(b.weight("B", directions, 8 * units))
    if states:
        names.append(b.feed("lengths", np.array([6, 2, 4], np.int32), free=None))
        names += [b.feed(name, b.numbers(directions, 3, units), free=None) for name in ("h0", "c0")]
    else:
        names += ["", "", ""]
    if peepholes:
        names.append(b.weight("P", directions, 3 * units))
    direction = "bidirectional" if directions == 2 else "forward"
    b.nodes.append(helper.make_node("LSTM", names, ["y", "h", "c"], "lstm", hidden_size=units, direction=direction))
    return b.case({"y": 4, "h": 3, "c": 3})


def gru(units: int = 64, opset: int = 17) -> Case:
    b = Builder(opset)
    x = b.feed("x", b.numbers(6, 3, 24), free=None)
    w, r = b.weight("W", 1, 3 * units, 24), b.weight("R", 1, 3 * units, units)
    return b.case({b.add("GRU", [x, w, r], "y", hidden_size=units): 4})


def embedding(opset: int = 17) -> Case:
    """Token ids -> rows of a table -> a product."""
    b = Builder(opset)
    ids = b.feed("ids", b.random.integers(0, 500, (3, 7)))
    rows = b.add("Gather", [b.weight("table", 500, 64), ids], "rows")
    return b.case({b.dense(rows, "dense", 64, 64): 3})


def nothing(opset: int = 17) -> Case:
    """A model without weights."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(3, 7, 16))
    return b.case({b.add("Softmax", [b.add("MatMul", [x, b.add("Transpose", [x], "t", perm=[0, 2, 1])], "s")], "y"): 3})


def vector(opset: int = 17) -> Case:
    """One sample without an axis for samples -> a product."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(64), free=64)
    return b.case({b.dense(x, "dense", 64, 64): 1})


def stacked(opset: int = 17) -> Case:
    """Each head has a matrix of its own, all in one constant of rank 3; and a constant on the left."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(2, 4, 6, 64))
    y = b.add("MatMul", [x, b.weight("heads", 4, 64, 32)], "y")
    return b.case({b.add("MatMul", [b.weight("left", 6, 6), y], "z"): 4})


def root_mean_square(size: float = 1000.0, opset: int = 17) -> Case:
    """x / sqrt(mean(x²) + 1e-12) written out, x up to some thousands: the squares are beyond 16 bits."""
    b = Builder(opset, scale=1.0)
    x = b.feed("x", b.numbers(3, 7, 64))
    x = b.add("Mul", [b.dense(x, "dense", 64, 64), b.constant("size", np.float32(size / 8))], "large")
    square = b.add("Pow", [x, b.constant("two", np.float32(2))], "square")
    mean = b.add("ReduceMean", [square, b.constant("last", np.array([-1]))] if opset >= 18 else [square], "mean",
                 **({} if opset >= 18 else {"axes": [-1]}))  # fmt: skip
    root = b.add("Sqrt", [b.add("Add", [mean, b.constant("epsilon", np.float32(1e-12))], "sum")], "root")
    return b.case({b.dense(b.add("Div", [x, root], "normal"), "after", 64, 64): 3})


def outputs(opset: int = 17) -> Case:
    """A result that is both an output and read on; a softmax that is an output; an output that is an input."""
    b = Builder(opset)
    x = b.feed("x", b.numbers(3, 64))
    middle = b.dense(x, "one", 64, 64)
    y = b.dense(b.add("Softmax", [middle], "shares"), "two", 64, 64)
    b.add("Identity", [x], "same")
    return b.case({middle: 2, "shares": 2, y: 2, "same": 2})


def embedding_before_loop(opset: int = 17) -> Case:
    """Rows of a table, their axes exchanged, then a loop over their steps: what tf2onnx makes of a recurrent layer."""
    b = Builder(opset)
    ids = b.feed("ids", b.random.integers(0, 500, (2, 7)), free=None)
    rows = b.add("Transpose", [b.add("Gather", [b.weight("table", 500, 64), ids], "rows")], "steps", perm=[1, 0, 2])
    b.constant("times", np.array(7))
    b.add("Gather", [rows, b.constant("first", np.array(0))], "start", axis=0)
    real, flag, whole = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Gather", [rows, "i"], ["row"], "step/Gather"),
            helper.make_node("Add", ["row", "s"], ["next"], "step/Add"),
            helper.make_node("Identity", ["go"], ["on"], "step/Identity"),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", whole, []),
            helper.make_tensor_value_info("go", flag, []),
            helper.make_tensor_value_info("s", real, [2, 64]),
        ],
        [helper.make_tensor_value_info("on", flag, []), helper.make_tensor_value_info("next", real, [2, 64])],
    )
    return b.case({b.dense(b.add("Loop", ["times", "", "start"], "looped", body=body), "after", 64, 64): 2})
