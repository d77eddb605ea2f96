"""Products as Gemm: the same numbers, names and layers, and the fewest operations."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from mh_edge.errors import InputError
from mh_edge.quantization.onnx.products import as_gemms

SUMMATION = 2e-5
"""Of the greatest output: Gemm starts from the bias, MatMul ends with it; float32 has 7 digits, a chain has 10 sums."""

IR_VERSION = 13
"""Of opset 26; every opset below may stand in it."""


class Sketch:
    """A small graph: every call of `op` adds a node in the layer that `layer` names."""

    def __init__(self, opset: int = 17) -> None:
        self.opset, self.layer = opset, "layer"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.rng = np.random.default_rng(5)

    def input(self, name: str, *sizes: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes))
        return name

    def output(self, name: str, *sizes: int | str | None, dtype: int = TensorProto.FLOAT) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, dtype, sizes))

    def constant(self, array: object, dtype: str = "float32") -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *sizes: int) -> str:
        return self.constant(self.rng.normal(size=sizes) / np.sqrt(sizes[0]))

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        name = f"{self.layer}/{op_type}_{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [f"{name}:0"], name=name, **attributes)
        helper.set_metadata_props(node, {"mh_edge.rule": self.layer})
        self.nodes.append(node)
        return f"{name}:0"

    def dense(self, x: str, inputs: int, outputs: int, *, bias_first: bool = False) -> str:
        product, bias = self.op("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs)
        return self.op("Add", *((bias, product) if bias_first else (product, bias)))

    def norm(self, x: str, size: int, axis: int = -1) -> str:
        """LayerNormalization over the last axis, in its parts where the opset has none."""
        scale, shift = self.weight(size), self.weight(size)
        if self.opset >= 17:
            return self.op("LayerNormalization", x, scale, shift, axis=axis, epsilon=1e-3)

        def mean(value: str) -> str:
            return self.op("ReduceMean", value, axes=[-1], keepdims=1)

        centred = self.op("Sub", x, mean(x))
        variance = mean(self.op("Pow", centred, self.constant(2.0)))
        deviation = self.op("Sqrt", self.op("Add", variance, self.constant(1e-3)))
        return self.op("Add", self.op("Mul", self.op("Div", centred, deviation), scale), shift)

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Mul", x, self.constant(0.5**0.5)))
        return self.op("Mul", self.op("Mul", x, self.constant(0.5)), self.op("Add", erf, self.constant(1.0)))

    def attention(self, x: str, heads: int, size: int) -> str:
        """Self-attention in its parts, with sizes taken from where they stand."""
        split = self.constant([0, -1, heads, size], "int64")
        query, key, value = (
            self.op("Transpose", self.op("Reshape", self.dense(x, heads * size, heads * size), split), perm=perm)
            for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        weights = self.op("Softmax", self.op("MatMul", query, key), axis=-1)
        heard = self.op("Transpose", self.op("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = self.op("Reshape", heard, self.constant([0, -1, heads * size], "int64"))
        return self.dense(joined, heads * size, heads * size)

    def model(self, **options: object) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "graph", self.inputs, self.outputs, self.constants)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=IR_VERSION)
        onnx.checker.check_model(made, full_check=True)
        return made


def transformer(opset: int, *sizes: int | str, blocks: int = 1) -> onnx.ModelProto:
    """(batch, time, 8): Dense, blocks of attention and two layers with residuals and normalization, two outputs."""
    sketch = Sketch(opset)
    x = sketch.dense(sketch.input("x", *sizes, 8), 8, 8)
    for block in range(blocks):
        sketch.layer = f"block_{block}"
        x = sketch.norm(sketch.op("Add", x, sketch.attention(x, 2, 4)), 8)
        wide = sketch.op("Relu", sketch.dense(x, 8, 16, bias_first=True))
        x = sketch.norm(sketch.op("Add", x, sketch.dense(sketch.gelu(wide), 16, 8)), 8)
    sketch.output(x, *sizes, 8)
    sketch.output(sketch.op("ReduceMax", x, **({"axes": [1]} if opset < 18 else {})), *([None] * 3))
    return sketch.model()


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    results: list[np.ndarray] = session.run(None, dict(feeds))
    return results


def rewritten(model: onnx.ModelProto, *feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """As Gemms, after everything that holds for every model."""
    before = model.SerializeToString(deterministic=True)
    made = as_gemms(model)
    assert model.SerializeToString(deterministic=True) == before
    assert as_gemms(model).SerializeToString(deterministic=True) == made.SerializeToString(deterministic=True)
    onnx.checker.check_model(made, full_check=True)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True, data_prop=True)
    assert list(made.graph.input) == list(model.graph.input)
    assert list(made.graph.output) == list(model.graph.output)
    assert len({node.name for node in made.graph.node}) == len(made.graph.node)
    stay = {node.name: node for node in made.graph.node}
    for node in model.graph.node:
        if node.name in stay:
            assert list(stay[node.name].metadata_props) == list(node.metadata_props)
    for node in made.graph.node:
        assert [prop.value for prop in node.metadata_props] == [node.name.partition("/")[0]]
    for fed in feeds:
        for ours, theirs in zip(run(made, fed), run(model, fed), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=SUMMATION * max(1, np.abs(theirs).max(initial=0)))
    return made


def counts(model: onnx.ModelProto) -> dict[str, int]:
    return dict(collections.Counter(node.op_type for node in model.graph.node))


def normal(*sizes: int, scale: float = 1) -> dict[str, np.ndarray]:
    return {"x": (scale * np.random.default_rng(sum(sizes)).normal(size=sizes)).astype("float32")}


@pytest.mark.parametrize("opset", [11, 14, 17, 23, 26])
@pytest.mark.parametrize("sizes", [("batch", 5), ("batch", "time"), (1, 1), (3, "time")])
def test_a_transformer_computes_the_same(opset: int, sizes: tuple[int | str, ...]) -> None:
    def fit(batch: int, time: int) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else given for size, given in zip(sizes, (batch, time), strict=True))

    feeds = [normal(*fit(*given), 8) for given in ((1, 1), (2, 5), (5, 3))]
    rewritten(transformer(opset, *sizes), *feeds, normal(*fit(2, 4), 8, scale=1e4))


@pytest.mark.parametrize(
    ("sizes", "more"), [(("batch", 5), {}), ((2, "time"), {}), (("batch", "time"), {"Shape": 1, "Concat": 2})]
)
def test_only_the_first_flatten_and_what_attention_needs_remain(
    sizes: tuple[int | str, ...], more: dict[str, int]
) -> None:
    """One Flatten for query, key and value; heads are split from the matrix and joined to one; with two free sizes they
    are asked for once.
    """
    found = counts(as_gemms(transformer(17, *sizes, blocks=2)))
    inner = {"Transpose": 8, "MatMul": 4, "Softmax": 2, "LayerNormalization": 4, "Add": 4 + 2, "Mul": 6, "Erf": 2}
    assert found == inner | {"Flatten": 1, "Gemm": 13, "Reshape": 9, "Relu": 2, "ReduceMax": 1} | more


def test_the_comparison_sees_a_wrong_bias() -> None:
    model = transformer(17, "batch", "time")
    wrong = as_gemms(model)
    bias = next(node for node in wrong.graph.node if node.op_type == "Gemm").input[2]
    (tensor,) = (tensor for tensor in wrong.graph.initializer if tensor.name == bias)
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(1e-3), bias))
    feeds = normal(2, 5, 8)
    assert np.abs(run(wrong, feeds)[0] - run(model, feeds)[0]).max() > 10 * SUMMATION


@pytest.mark.parametrize("sizes", [(1,), (), (1, 4), (3, 4), (2, 3, 4)])
def test_a_bias_of_another_shape_is_left_alone(sizes: tuple[int, ...]) -> None:
    sketch = Sketch()
    product = sketch.op("MatMul", sketch.input("x", "batch", 3, 8), sketch.weight(8, 4))
    sketch.output(sketch.op("Add", product, sketch.constant(np.ones(sizes))), *([None] * 3))
    assert counts(rewritten(sketch.model(), normal(2, 3, 8))) == {"MatMul": 1, "Add": 1}


def test_a_product_that_others_use_is_left_alone() -> None:
    sketch = Sketch()
    x = sketch.input("x", "batch", 3, 8)
    shown, twice = (sketch.op("MatMul", x, sketch.weight(8, 4)) for _ in range(2))
    sketch.output(shown, "batch", 3, 4)
    sketch.output(sketch.op("Add", shown, sketch.weight(4)), "batch", 3, 4)
    sketch.output(sketch.op("Mul", sketch.op("Add", twice, sketch.weight(4)), twice), "batch", 3, 4)
    assert counts(rewritten(sketch.model(), normal(2, 3, 8))) == {"MatMul": 2, "Add": 2, "Mul": 1}


def test_a_weight_that_the_user_may_give_is_left_alone() -> None:
    sketch = Sketch()
    sketch.output(sketch.dense(sketch.input("x", "batch", 3, 8), 8, 4), "batch", 3, 4)
    model = sketch.model()
    model.graph.input.append(helper.make_tensor_value_info("constant_0", TensorProto.FLOAT, [8, 4]))
    assert counts(rewritten(model, normal(2, 3, 8))) == {"MatMul": 1, "Add": 1}


def test_weights_may_be_constants_of_the_graph_and_shared() -> None:
    sketch = Sketch()
    x = sketch.input("x", "batch", 3, 4, 8)
    weight = sketch.op("Constant", value=numpy_helper.from_array(sketch.rng.normal(size=(8, 8)).astype("float32")))
    bias = sketch.weight(8)
    for _ in range(3):
        x = sketch.op("Add", bias, sketch.op("MatMul", x, weight))
    sketch.output(x, "batch", 3, 4, 8)
    made = rewritten(sketch.model(), normal(2, 3, 4, 8))
    assert counts(made) == {"Constant": 1, "Flatten": 1, "Gemm": 3, "Reshape": 1}


def test_the_rank_of_a_value_with_two_free_sizes_is_known_without_running() -> None:
    """Attention of opset 23 asks for the rank of its inputs."""
    sketch = Sketch(opset=23)
    x = sketch.input("x", "batch", "time", 8)
    parts = [sketch.op("Relu", sketch.dense(x, 8, 8)) for _ in range(3)]
    heard = sketch.op("Attention", *parts, q_num_heads=2, kv_num_heads=2)
    sketch.output(sketch.dense(heard, 8, 8), "batch", "time", 8)
    found = counts(rewritten(sketch.model(), normal(2, 3, 8)))
    assert found == {"Flatten": 2, "Gemm": 4, "Relu": 3, "Shape": 1, "Concat": 1, "Reshape": 4, "Attention": 1}


def test_a_damaged_model_is_refused() -> None:
    model = transformer(17, "batch", 5)
    next(node for node in model.graph.node if node.op_type == "Transpose").attribute[0].type = 0
    with pytest.raises(InputError, match="cannot be read"):
        as_gemms(model)


def test_a_product_of_rank_two_needs_no_reshape() -> None:
    sketch = Sketch()
    hidden = sketch.op("Relu", sketch.dense(sketch.input("x", "batch", 8), 8, 4))
    sketch.output(sketch.dense(hidden, 4, 2), "batch", 2)
    assert counts(rewritten(sketch.model(), normal(2, 8))) == {"Gemm": 2, "Relu": 1}


def test_a_value_that_a_subgraph_uses_stays() -> None:
    sketch = Sketch()
    inner = sketch.dense(sketch.input("x", "batch", 3, 8), 8, 4)
    branches = [
        helper.make_graph(
            [helper.make_node(op, [inner], [op], name=f"layer/{op}")],
            op,
            [],
            [helper.make_tensor_value_info(op, TensorProto.FLOAT, ["batch", 3, 4])],
        )
        for op in ("Neg", "Abs")
    ]
    for branch in branches:
        helper.set_metadata_props(branch.node[0], {"mh_edge.rule": "layer"})
    positive = sketch.op("Greater", sketch.op("ReduceSum", sketch.op("Relu", inner), keepdims=0), sketch.constant(1.0))
    sketch.output(sketch.op("If", positive, then_branch=branches[0], else_branch=branches[1]), "batch", 3, 4)
    made = rewritten(sketch.model(), normal(2, 3, 8))
    assert counts(made)["Gemm"] == 1
    assert [node.attribute for node in made.graph.node if node.op_type == "If"] == [
        node.attribute for node in sketch.nodes if node.op_type == "If"
    ]


def test_residuals_around_normalized_products_need_one_flatten() -> None:
    sketch = Sketch()
    x = sketch.input("x", "batch", 3, 8)
    for _ in range(2):
        x = sketch.op("Add", x, sketch.dense(sketch.norm(x, 8, axis=2), 8, 8))
    sketch.output(x, "batch", 3, 8)
    found = counts(rewritten(sketch.model(), normal(2, 3, 8)))
    assert found == {"Flatten": 1, "LayerNormalization": 2, "Gemm": 2, "Add": 2, "Reshape": 1}


def test_what_mixes_steps_keeps_its_axes() -> None:
    sketch = Sketch()
    x = sketch.dense(sketch.input("x", "batch", "time", 8), 8, 8)
    mean = sketch.op("Sub", x, sketch.op("ReduceMean", x, axes=[1], keepdims=1))
    halves = sketch.op("Reshape", sketch.dense(x, 8, 4), sketch.constant([0, 2, -1, 4], "int64"))
    sketch.output(sketch.dense(mean, 8, 4), "batch", "time", 4)
    sketch.output(sketch.dense(sketch.op("Tanh", halves), 4, 4), "batch", 2, None, 4)
    assert counts(rewritten(sketch.model(), normal(3, 4, 8)))["Gemm"] == 4


@pytest.mark.parametrize("sizes", [("batch", 3), ("batch", "time")])
def test_no_samples_at_all(sizes: tuple[int | str, ...]) -> None:
    sketch = Sketch()
    sketch.output(sketch.dense(sketch.dense(sketch.input("x", *sizes, 8), 8, 4), 4, 4), *sizes, 4)
    feeds = [normal(0, 3, 8)] + [normal(2, 0, 8)] * (sizes[1] == "time")
    assert counts(rewritten(sketch.model(), *feeds))["Gemm"] == 2


def test_files_older_than_opset_11_stay_as_they_are() -> None:
    sketch = Sketch(opset=9)
    sketch.output(sketch.dense(sketch.input("x", "batch", 3, 8), 8, 4), "batch", 3, 4)
    assert counts(rewritten(sketch.model())) == {"MatMul": 1, "Add": 1}


STEPS = [
    "dense",
    "dense",
    "dense",
    "reversed",
    "product",
    "relu",
    "gelu",
    "norm",
    "residual",
    "residual",
    "scalar",
    "vector",
    "gate",
    "along",
    "heads",
    "output",
]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=10),
    rank=st.integers(2, 4),
    free=st.integers(0, 3),
    opset=st.sampled_from([11, 13, 17, 22]),
    data=st.data(),
)
def test_any_chain_computes_the_same(
    steps: Sequence[str], rank: int, free: int, opset: int, data: st.DataObject
) -> None:
    actual = [data.draw(st.integers(1, 3)) for _ in range(rank - 1)]
    sizes: list[int | str] = [f"size_{axis}" if axis < free else size for axis, size in enumerate(actual)]
    sketch = Sketch(opset)
    seen = [(sketch.input("x", *sizes, 4), 4)]
    for index, step in enumerate(steps):
        sketch.layer = f"layer_{index}"
        x, width = data.draw(st.sampled_from(seen[-2:]))
        if step in ("dense", "reversed"):
            wide = data.draw(st.sampled_from([2, 4]))
            x, width = sketch.dense(x, width, wide, bias_first=step == "reversed"), wide
        elif step == "product":
            x = sketch.op("MatMul", x, sketch.weight(width, width))
        elif step == "relu":
            x = sketch.op("Relu", x)
        elif step == "gelu":
            x = sketch.gelu(x)
        elif step == "norm":
            x = sketch.norm(x, width)
        elif step == "residual":
            x = sketch.op("Add", x, data.draw(st.sampled_from([name for name, size in seen if size == width])))
        elif step == "scalar":
            x = sketch.op("Mul", sketch.constant(0.5), x)
        elif step == "vector":
            x = sketch.op("Sub", x, sketch.weight(width))
        elif step == "gate":
            gate = sketch.op("ReduceMean", x, keepdims=1, **({"axes": [-1]} if opset < 18 else {}))
            x = sketch.op("Mul", x, sketch.op("Sigmoid", gate))
        elif step == "along":
            x = sketch.op("Softmax", x, axis=data.draw(st.integers(0, rank - 1)))
        elif step == "heads":
            split = sketch.op("Reshape", x, sketch.constant([0] * (rank - 1) + [-1, 2], "int64"))
            x = sketch.op("Reshape", sketch.op("Tanh", split), sketch.constant([0] * (rank - 1) + [-1], "int64"))
        else:
            sketch.output(sketch.op("Neg", x), *([None] * rank))
            continue
        seen.append((x, width))
    for name in dict.fromkeys(name for name, _ in seen[1:][-2:]):
        sketch.output(name, *([None] * rank))
    if sketch.outputs:
        rewritten(sketch.model(), normal(*actual, 4), normal(*actual, 4, scale=100))
