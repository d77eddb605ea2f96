"""QNN, for Qualcomm's Hexagon processors (HTP).

.onnx: operations and conditions as onnxruntime-qnn 2.7.0 answered one-node models of every ONNX operation, of each
type and of ranks 1 to 7 (HTP, SM8550), with the reasons it gave; sources: github.com/onnxruntime/onnxruntime-qnn,
builder/opbuilder. .tflite: the op builders of LiteRT's own Qualcomm compiler plugin
(litert/vendors/qualcomm/compiler/qnn_compose_graph.cc of LiteRT 2.3); what Qualcomm's validation then says only its SDK
knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from mh_edge.forecast.delegate import Delegate, fixed_sizes, halves, main_graph, names, predicted, rank
from mh_edge.forecast.graph import Graph, Node, Tensor, first
from mh_edge.forecast.onnxgraph import QUANTIZED
from mh_edge.forecast.result import Forecast, Refusal

RANK = 5
BASIS = "the answers of onnxruntime-qnn 2.7.0 (Hexagon, SM8550) to one-node models of each operation"
FLOAT_NOTE = "floats are computed as float16, on chips from Hexagon v69 on: the provider option soc_model must name one"

OPERATIONS = names(
    "Abs Add And ArgMax ArgMin Atan Attention AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose "
    "Cos CumSum DepthToSpace DequantizeLinear Div Einsum Elu Equal Exp Expand Flatten Floor GRU Gather GatherElements "
    "GatherND Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample GroupNormalization "
    "HardSigmoid HardSwish Identity InstanceNormalization IsNaN LRN LSTM LayerNormalization LeakyRelu Less "
    "LessOrEqual Log LogSoftmax LpNormalization LpPool MatMul Max MaxPool Mean Min Mish Mod Mul Neg NonZero Not "
    "OneHot Or PRelu Pad Pow QuantizeLinear RMSNormalization Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin "
    "ReduceSum Relu Reshape Resize RotaryEmbedding Round STFT ScatterElements ScatterND Selu Sigmoid Sign Sin Slice "
    "Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Swish Tan Tanh ThresholdedRelu Tile TopK Transpose "
    "Unsqueeze Upsample Where Xor com.microsoft.MatMulNBits com.microsoft.Gelu com.microsoft.QuickGelu "
    "com.microsoft.FusedMatMul"
)

FUSED = ("DynamicQuantizeLinear", "MatMulInteger")
"""Taken as the pattern of dynamic quantization, not one by one."""

CONSTANT = {
    "BatchNormalization": (1, 2, 3, 4), "Clip": (1, 2), "CumSum": (1,), "Expand": (1,), "LSTM": (4,), "Pad": (1,),
    "ReduceL2": (1,), "ReduceMax": (1,), "ReduceMean": (1,), "ReduceMin": (1,), "ReduceSum": (1,), "Reshape": (1,),
    "Slice": (1, 2, 3, 4), "Split": (1,), "Tile": (1,), "TopK": (1,),
}  # fmt: skip
"""Inputs that must be stored in the file."""

OPTIONS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "ArgMax": {"select_last_index": (0,)},
    "ArgMin": {"select_last_index": (0,)},
    "CumSum": {"exclusive": (0,), "reverse": (0,)},
    "GatherND": {"batch_dims": (0,)},
    "Gemm": {"alpha": (1,), "beta": (1, 0)},
    "LpNormalization": {"p": (2,)},
}
"""The values of attributes that it takes, the default first."""

WHAT = {"LSTM": "lengths that are computed (a mask)"}

FLOATS = frozenset({"float32", "float16"})
NUMBERS = FLOATS | {"int32", "int64"}
TYPES: Mapping[str, frozenset[str]] = {
    **dict.fromkeys(
        names(
            "Exp MatMul Gemm Neg Pow ReduceMean Relu Sigmoid Sign Softmax LogSoftmax Sqrt Attention LayerNormalization "
            "Tanh Conv LSTM GRU ReduceL2 Gelu Elu com.microsoft.Gelu com.microsoft.MatMulNBits"
        ),
        FLOATS,
    ),
    **dict.fromkeys(names("Concat Expand Gather Identity Split Tile"), NUMBERS | {"bool"}),
    **dict.fromkeys(names("Reshape Squeeze Unsqueeze Slice"), NUMBERS | {"bool", "uint8"}),
    "Transpose": FLOATS | {"int32", "bool"},
    "GatherND": FLOATS | {"int32"},
    **dict.fromkeys(names("And Or Xor Not"), frozenset({"bool"})),
    "Where": frozenset({"bool"}),
    "Cast": NUMBERS | {"bool", "uint8"},
}
"""Types of the first input where they are not NUMBERS."""

CASTS = {
    "float32": {"bool", "float16", "float32", "int32", "uint8"},
    "float16": {"float16", "float32", "int32"},
    "int32": {"bool", "float16", "float32", "int32", "int64", "uint8"},
    "int64": {"bool", "float16", "float32", "int32", "int64", "uint8"},
    "bool": {"bool", "float16", "float32", "int32", "uint8"},
    "uint8": {"bool", "float16", "float32", "int32", "uint8"},
}
"""What each type can be cast to."""

FULL = "quantize --scheme qnn-a16w8"
FIXES = {"com.microsoft.MatMulNBits": FULL}


def _known(node: Node, graph: Graph) -> Refusal | None:
    if node.op == "If":
        return Refusal("QNN takes a branch whole or not at all, which is not foretold")
    if node.op in FUSED:
        return None if _dynamic_pattern(node, graph) else Refusal("QNN takes it in dynamic quantization only", FULL)
    return None if node.op in OPERATIONS else Refusal("QNN has no such operation", FIXES.get(node.op, ""))


def _dynamic_pattern(node: Node, graph: Graph) -> bool:
    """DynamicQuantizeLinear -> MatMulInteger -> Cast -> Mul."""
    if node.op == "DynamicQuantizeLinear":
        return all(user.op == "MatMulInteger" for user in graph.users.get(node.outputs[0].name, ()))
    left = node.input(0)
    maker = None if left is None else graph.maker.get(left.name)
    users = graph.users.get(node.outputs[0].name, ())
    return maker is not None and maker.op == "DynamicQuantizeLinear" and all(user.op == "Cast" for user in users)


def _typed(node: Node, graph: Graph) -> Refusal | None:
    head = node.input(0)
    if head is None or node.op in (*QUANTIZED, *FUSED) or _unit(node, graph):
        return None
    if head.dtype not in TYPES.get(node.op, NUMBERS):
        return Refusal(f"dtype {head.dtype}")
    if node.op == "Cast" and node.outputs[0].dtype not in CASTS[head.dtype]:
        return Refusal(f"a Cast from {head.dtype} to {node.outputs[0].dtype}")
    return None


def _unit(node: Node, graph: Graph) -> tuple[Node, ...]:
    """The DequantizeLinear nodes before it."""
    makers = (graph.maker.get(tensor.name) for tensor in node.computed)
    return tuple(maker for maker in makers if maker is not None and maker.op == "DequantizeLinear")


def _conditions(node: Node, graph: Graph) -> Refusal | None:
    """What single builders ask for."""
    del graph
    for place in CONSTANT.get(node.op, ()):
        tensor = node.input(place)
        if tensor is not None and not tensor.constant:
            return Refusal(WHAT.get(node.op, "a parameter that is computed"))
    for name, allowed in OPTIONS.get(node.op, {}).items():
        if (value := node.options.get(name, allowed[0])) not in allowed:
            return Refusal(f"{name}={value:g}")
    if node.op in ("LSTM", "GRU") and "activations" in node.options:
        return Refusal("activations that are named, be they the usual ones")
    head, mask = node.input(0), node.input(3)
    if node.op == "com.microsoft.MatMulNBits" and (head is None or head.rank != 3):
        return Refusal("its 4-bit product takes 3 dimensions only", FULL)
    if node.op == "Attention" and mask is not None and mask.dtype == "bool":
        return Refusal("an Attention with a boolean mask", "export --runtime plugins")
    if node.op == "LayerNormalization" and not _last_axis(node, head):
        return Refusal("an axis that is not the last")
    return None


def _last_axis(node: Node, head: Tensor | None) -> bool:
    axis = node.options.get("axis", -1)
    return axis == -1 or (head is not None and axis == (head.rank or 0) - 1)


def _quantized(node: Node, graph: Graph) -> Refusal | None:
    """Groups of DequantizeLinear, an operation and QuantizeLinear: taken or left as one."""
    if node.op == "DequantizeLinear":
        refusals = (_group(user, graph) for user in graph.users.get(node.outputs[0].name, ()))
    elif node.op == "QuantizeLinear":
        maker = graph.maker.get(node.input(0).name) if node.input(0) else None  # type: ignore[union-attr]
        refusals = (_group(one, graph) for one in (maker,) if one is not None)
    else:
        return _group(node, graph)
    return next(filter(None, refusals), None) or _at_the_border(node, graph)


def _group(node: Node, graph: Graph) -> Refusal | None:
    """An operation between DequantizeLinear and QuantizeLinear."""
    before = _unit(node, graph)
    if not before or node.op in QUANTIZED:
        return None
    both = len(before) > 1 and any(one.computed for one in before)
    if node.op in ("Gemm", "MatMul", "Conv") and both and not _back_to_integers(node, graph):
        return Refusal("integers in and floats out", FULL)
    types = [one.input(0).dtype for one in before if one.input(0)]  # type: ignore[union-attr]
    if node.op == "LayerNormalization" and types[0] == "uint16" and "int8" in types[1:2]:
        return Refusal("16-bit activations with an int8 scale", FULL)
    return None


def _back_to_integers(node: Node, graph: Graph) -> bool:
    """Every result is quantized, at once or after a Relu."""
    users = graph.users.get(node.outputs[0].name, ())
    return bool(users) and all(
        user.op == "QuantizeLinear" or (user.op == "Relu" and _back_to_integers(user, graph)) for user in users
    )


def _at_the_border(node: Node, graph: Graph) -> Refusal | None:
    """What turns inputs of the model into integers, and integers into its outputs, ONNX Runtime leaves to the CPU."""
    head = node.input(0)
    inner = head is not None and (head.name in graph.maker or head.constant)
    if node.op == "QuantizeLinear" and not inner:
        return Refusal("it quantizes an input of the model: left to the CPU, which costs little")
    if node.op == "DequantizeLinear" and node.outputs[0].name in graph.outputs:
        return Refusal("it makes an output of the model: left to the CPU, which costs little")
    return None


def _onnx(graph: Graph) -> Forecast:
    checks = (main_graph, _known, lambda node, _: rank(node, RANK), _typed, _conditions, fixed_sizes, _quantized)
    floats = not any(node.op in QUANTIZED for node in graph.nodes)
    return predicted(
        graph,
        partial(first, checks=checks),
        BASIS,
        (FLOAT_NOTE,) if floats else (),
        dropped=lambda parts: [part for part in parts if len(part) == 1 and part[0].op in QUANTIZED],
        why="alone between others, it is not worth a partition",
    )


LITE_BASIS = "the list of operations of LiteRT 2.3's Qualcomm compiler plugin (qnn_compose_graph.cc)"
LITE_NOTE = "what Qualcomm's own validation says to types and sizes is not known without its SDK"
LITE_OPERATIONS = names(
    "ABS ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_TO CAST CEIL CONCATENATION "
    "CONV_2D CONV_3D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU "
    "EMBEDDING_LOOKUP EQUAL EXP FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GELU GREATER GREATER_EQUAL "
    "HARD_SWISH L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR "
    "LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG NOT_EQUAL ONE_HOT PACK PAD PADV2 POW "
    "PRELU QUANTIZE REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE "
    "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SCATTER_ND SELECT SELECT_V2 SIGN SIN SLICE "
    "SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE STABLEHLO_COMPOSITE "
    "STRIDED_SLICE SUB SUM TANH TILE TOPK_V2 TRANSPOSE TRANSPOSE_CONV UNPACK"
)


def _lite(node: Node, graph: Graph) -> Refusal | None:
    del graph
    if node.op not in LITE_OPERATIONS:
        return Refusal("LiteRT's plugin for QNN has no such operation")
    types = {tensor.dtype for tensor in (*node.computed, *node.outputs)} & {"int64", "float64", "string", "complex64"}
    return Refusal(f"dtype {types.pop()}") if types else rank(node, RANK)


def _tflite(graph: Graph) -> Forecast:
    return predicted(graph, halves(graph, partial(first, checks=(_lite, fixed_sizes))), LITE_BASIS, (LITE_NOTE,))


DELEGATES = (Delegate("qnn", "onnx", _onnx), Delegate("qnn", "tflite", _tflite))
