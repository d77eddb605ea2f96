"""Products of token sequences as the one operation that runtimes know best: Gemm, with its bias.

A MatMul of an activation with a constant matrix, and the Add of its bias, are one product of matrices:

    x (…, K) W (K, N) + b (N,)  =  Reshape(Gemm(Flatten(x) (P, K), W, b), (…, N)),    P = product of the sizes …

and what treats each token alike (activations, sums, LayerNormalization) is the same on (P, N): of a chain only the
first Flatten and the last Reshape remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mh_edge.errors import InputError
from mh_edge.packages import require
from mh_edge.quantization.onnx.sizes import ELEMENTWISE, Sizes, free, sizes_of, values_of

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

OLDEST = 11
"""The first opset in which a Gemm needs no bias and Slice takes its ends as inputs; older files stay as they are."""

_SHAPE_OF_A_PART = 15
"""The opset from which Shape gives the sizes of some axes."""

_ALLOW_ZERO = 14
"""The opset from which Reshape can be told that a size of 0 means none, not "as it was"."""

_RESHAPES = frozenset({"Flatten", "Reshape", "Squeeze", "Unsqueeze"})
"""Operations that leave every number in its place."""


def as_gemms(model: onnx.ModelProto) -> onnx.ModelProto:
    """x W + b -> Gemm between Flatten and Reshape, in any .onnx file; the model given is left as it is.

    Taken are float32 products with a constant W (K, N) and a constant b (N,), of the outermost graph. Tensors that
    stay keep their names; a Gemm has the name of its MatMul; what is new has names made of those, the same every time.
    The result differs from the model by the order of summation only. Raises InputError for a damaged model.

    Measured with ONNX Runtime 1.31, one thread, on a masked transformer (2 layers, width 64, 20 steps), as a share of
    the float model's time at batch 1 / 8 / 32; unfused: as it was, with the runtime's SkipLayerNormFusion switched off:

        products         as it was             unfused               as Gemms
        in float         1.00                  .83 / .72 / .73       .78 / .68 / .67
        in int8          1.07 / .91 / .91      .93 / .67 / .65       .82 / .56 / .52    one QGemm with bias for three
        dynamic          .99 / .85 / .86       .81 / .58 / .56       .83 / .57 / .56

    The Add of a residual and LayerNormalization, of rank 2, are not fused by the runtime: as SkipLayerNormalization
    they would take 1.6 to 5 times as long as by themselves. With 1.20 and 1.23, where the fusion neither helps nor
    hurts, the float model takes .90 / .88 / .85.
    """
    require("onnx_ir", "quantize", "quantizing an .onnx file")
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    try:
        result = ir.serde.deserialize_model(model)
        if result.graph.opset_imports.get("", 0) >= OLDEST:
            known = ir.serde.deserialize_model(model)
            ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(known)
            _Flattening(result.graph, known.graph).run()
            result.ir_version = max(result.ir_version, 4)  # before it, constants had to be inputs
        return ir.serde.serialize_model(result)
    except ir.serde.SerdeError as error:
        raise InputError(f"the model cannot be read: {error.__cause__ or error}.", "Is the file damaged?") from error


class _Flattening:
    """One pass over a graph.

    By the name that a value had: flat[name] is the matrix of it, root[name] a value that was there before, with the
    same sizes but for the last. whole: those whose value of full rank is there. wanted: those that a product needs.
    """

    def __init__(self, graph: ir.Graph, known: ir.Graph) -> None:
        self.graph = graph
        self.opset = graph.opset_imports[""]
        self.nodes = list(graph)
        self.sizes = sizes_of(known)
        self.dtypes = {value.name: value.dtype for value in values_of(known)}
        self.taken = {value.name for value in values_of(graph)} | {node.name for node in graph.all_nodes()}
        self.taken |= {value.name for node in graph.all_nodes() for value in node.outputs}
        self.products = {id(node): found for node in self.nodes if (found := self._product(node)) is not None}
        self.flat: dict[str, ir.Value] = {}
        self.root: dict[str, ir.Value] = {}
        self.whole: set[str] = set()
        self.wanted: set[str] = set()
        self.targets: dict[Sizes, ir.Value] = {}

    def run(self) -> None:
        for node in reversed(self.nodes):
            if id(node) in self.products:
                self.wanted.add(_name(self.products[id(node)][0].inputs[0]))
            elif _name(node.outputs[0]) in self.wanted:
                self.wanted |= set(self._token_wise(node))
        used = {name for name, value in self.graph.initializers.items() if value.uses()}
        inner = {id(matmul) for matmul, _ in self.products.values()}
        for node in self.nodes:
            if id(node) not in inner:
                self._visit(node)
        self._tidy(used)

    def _visit(self, node: ir.Node) -> None:
        if id(node) in self.products:
            matmul, bias = self.products[id(node)]
            x, weight = matmul.inputs
            gemm = self._make("Gemm", [self._flat(x, node), weight, bias], node, name=matmul.name)
            self._stand_in(gemm, node, x)
        elif tokens := self._flattened(node):
            inputs = [self._flat(value, node) if _name(value) in tokens else value for value in node.inputs]
            last = {"axis": -1} if "axis" in node.attributes else {}
            made = self._make(node.op_type, inputs, node, {**node.attributes, **last}, name=node.name)
            self._stand_in(made, node, next(value for value in node.inputs if _name(value) in tokens))
        elif not self._reshaped(node):
            for value in node.inputs:
                self._restore(value, node)

    def _size(self, value: ir.Value | None) -> Sizes:
        """() where it is not known."""
        return self.sizes.get(_name(value), ())

    def _product(self, node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
        """The MatMul and the bias, where the node is the Add of a product that a Gemm can take."""
        for value, bias in (node.inputs, node.inputs[::-1]) if _is(node, "Add") else ():
            matmul = None if value is None else value.producer()
            if value is None or bias is None or matmul is None or not _is(matmul, "MatMul"):
                continue
            (x, weight), sizes = matmul.inputs, self._size(matmul.inputs[1])
            if (
                (_fixed(weight) and _fixed(bias))
                and (len(sizes) == 2 and self._size(bias) == sizes[1:] and 0 not in sizes)
                and (len(self._size(node.outputs[0])) == len(self._size(x)) >= 2 and 0 not in self._size(x))
                and (len(value.uses()) == 1 and not value.is_graph_output())
                and {str(self.dtypes.get(_name(given))) for given in (x, weight, bias)} == {"FLOAT"}
            ):
                return matmul, bias
        return None

    def _token_wise(self, node: ir.Node) -> list[str]:
        """The inputs to flatten for the node to give its result flat; none where it does not treat each token alike."""
        out, inputs = self._size(node.outputs[0]), list(node.inputs)
        if node.domain or len(out) < 3 or None in out or any(value.uses() for value in node.outputs[1:]):
            return []
        if node.op_type in ELEMENTWISE:
            full = [value for value in inputs if self._size(value)[:-1] == out[:-1]]
        elif node.op_type == "LayerNormalization" and _number(node, "axis", -1) in (-1, len(out) - 1):
            full = inputs[:1]
        elif self._over_the_last(node):
            full = inputs = inputs[:1]
        else:
            return []
        rest = [value for value in inputs if value not in full]
        if any(value is not None and (_name(value) not in self.sizes or len(self._size(value)) > 1) for value in rest):
            return []
        return list(dict.fromkeys(_name(value) for value in full))

    def _over_the_last(self, node: ir.Node) -> bool:
        """Whether it is a product with a constant matrix, or a mean over the last axis alone, which it keeps."""
        import onnx_ir as ir

        if node.op_type == "MatMul":
            return _fixed(node.inputs[1]) and len(self._size(node.inputs[1])) == 2
        if node.op_type != "ReduceMean" or _number(node, "keepdims", 1) != 1:
            return False
        axes = node.inputs[1] if len(node.inputs) > 1 else None
        tensor = None if axes is None else ir.convenience.get_const_tensor(axes)
        given = node.attributes["axes"].as_ints() if "axes" in node.attributes else ()
        return list(given if tensor is None else tensor.numpy()) == [-1]

    def _flattened(self, node: ir.Node) -> list[str]:
        """Its inputs to flatten, where that pays: they are flat, or the one that is not would have to be flat later."""
        tokens = self._token_wise(node)
        missing = sum(name not in self.flat for name in tokens)
        pays = missing == 0 or (missing == 1 and _name(node.outputs[0]) in self.wanted)
        return tokens if pays else []

    def _flat(self, value: ir.Value | None, before: ir.Node) -> ir.Value | None:
        """The value as a matrix, made once."""
        name, sizes = _name(value), self._size(value)
        if value is None or len(sizes) == 2:
            return value
        if name not in self.flat:
            source, last = value.producer(), sizes[-1]
            if source is not None and _is(source, "Reshape") and isinstance(last, int):
                made = self._make("Reshape", [source.inputs[0], self._constant((-1, last))], before, base=name)
            else:
                made = self._make("Flatten", [value], before, {"axis": len(sizes) - 1}, base=name)
            self.flat[name], self.root[name] = made, value
            self.whole.add(name)
        return self.flat[name]

    def _stand_in(self, made: ir.Value, node: ir.Node, source: ir.Value | None) -> None:
        """Let it be the node's result, flat; bring that back at once where a subgraph or the user sees it."""
        value = node.outputs[0]
        name = _name(value)
        if len(self._size(source)) == 2:
            self._take_over(made, value)
            return
        made.name = self._unique(f"{name}/flat")
        self.flat[name], self.root[name] = made, self.root[_name(source)]
        if value.is_graph_output() or any(use.node.graph is not self.graph for use in value.uses()):
            self._restore(value, node)

    def _restore(self, value: ir.Value | None, before: ir.Node) -> None:
        """Put the value of full rank back, before the node that needs it."""
        name = _name(value)
        if value is not None and name in self.flat and name not in self.whole:
            self.whole.add(name)
            self._reshape(value, self.flat[name], self.root[name], before)

    def _reshaped(self, node: ir.Node) -> bool:
        """Whether the node but reshapes a value that is flat: it takes the flat one then."""
        name, sizes = _name(node.inputs[0] if node.inputs else None), self._size(node.outputs[0])
        if node.domain or node.op_type not in _RESHAPES or name not in self.flat or not sizes or 0 in sizes:
            return False
        leading = self._size(self.root[name])[:-1]
        if free(sizes) > 1 and not (sizes[: len(leading)] == leading and not free(sizes[len(leading) :])):
            return False
        self._reshape(node.outputs[0], self.flat[name], self.root[name], node, name=node.name)
        return True

    def _reshape(
        self, value: ir.Value, flat: ir.Value, root: ir.Value, before: ir.Node, name: str | None = None
    ) -> None:
        """Let a Reshape of the flat one stand for the value."""
        import onnx_ir as ir

        sizes, dtype = self._size(value), self.dtypes[_name(value)]
        target = self._target(sizes, root, before)
        if target.producer() is None:
            made = self._make("Reshape", [flat, target], before, name=name)
        else:
            zero = {"allowzero": 1} if self.opset >= _ALLOW_ZERO else None
            made = self._make("Reshape", [flat, target], before, zero, name=name)
            if value.shape is None and dtype is not None:
                # Inference without data propagation, as in onnx.checker, would not even find the rank.
                value.dtype, value.shape = dtype, ir.Shape(sizes)
        self._take_over(made, value)

    def _target(self, sizes: Sizes, root: ir.Value, before: ir.Node) -> ir.Value:
        """What to give Reshape: a constant where at most one size is free, else those of the root but the last, asked
        for once, and then numbers.
        """
        if free(sizes) <= 1:
            return self._constant(sizes)
        count, base = len(self._size(root)) - 1, _name(root)
        leading = self._size(root)[:-1]
        of_all: Sizes = (*(leading if None not in leading else (base,)), "")
        if of_all not in self.targets:
            if self.opset >= _SHAPE_OF_A_PART:
                self.targets[of_all] = self._make("Shape", [root], before, {"end": count}, base=base)
            else:
                shape = self._make("Shape", [root], before, base=base)
                ends = [self._constant((0,)), self._constant((count,))]
                self.targets[of_all] = self._make("Slice", [shape, *ends], before, base=base)
        key = (*of_all, *sizes[count:])
        if key not in self.targets:
            parts = [self.targets[of_all], self._constant(sizes[count:])]
            self.targets[key] = self._make("Concat", parts, before, {"axis": 0}, base=base)
        return self.targets[key]

    def _take_over(self, made: ir.Value, value: ir.Value) -> None:
        """Give a new value the name, type, sizes and users of the one that it replaces."""
        name = _name(value)
        made.type, made.shape = value.type, value.shape
        value.replace_all_uses_with(made, replace_graph_outputs=True)
        value.name, made.name = None, name

    def _make(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        attributes: Mapping[str, ir.Attr | int] | None = None,
        *,
        base: str = "",
        name: str | None = None,
    ) -> ir.Value:
        """An operation in front of a node, in its layer. base: what to make a name for the result of."""
        import onnx_ir as ir

        if name is None:
            layer, slash, _ = (before.name or "").rpartition("/")
            name = self._unique(f"{layer}{slash}{op_type}")
        made = ir.node(op_type, inputs, attributes, name=name)
        made.metadata_props.update(before.metadata_props)
        if base:
            made.outputs[0].name = self._unique(f"{base}/{op_type.lower()}")
        self.graph.insert_before(before, made)
        return made.outputs[0]

    def _constant(self, sizes: Sizes) -> ir.Value:
        """Sizes as a constant with -1 for a free one, made once."""
        import onnx_ir as ir

        numbers = tuple(size if isinstance(size, int) else -1 for size in sizes)
        if numbers not in self.targets:
            name = self._unique("sizes/" + "x".join(map(str, numbers)))
            value = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
            value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(numbers)])
            self.graph.register_initializer(value)
            self.targets[numbers] = value
        return self.targets[numbers]

    def _unique(self, name: str) -> str:
        count, found = 0, name
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found

    def _tidy(self, used: set[str]) -> None:
        """Drop what nothing needs any more."""
        for node in reversed(list(self.graph)):
            if not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self.graph.remove(node, safe=True)
        for name in used:
            value = self.graph.initializers[name]
            if not (value.uses() or value.is_graph_input() or value.is_graph_output()):
                del self.graph.initializers[name]


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _is(node: ir.Node, op_type: str) -> bool:
    return node.op_type == op_type and not node.domain


def _fixed(value: ir.Value | None) -> bool:
    """Whether nobody can change it: an initializer that is no input, or the result of Constant."""
    producer = None if value is None else value.producer()
    if producer is not None:
        return _is(producer, "Constant")
    return value is not None and value.is_initializer() and not value.is_graph_input()


def _number(node: ir.Node, attribute: str, usual: int) -> int:
    return node.attributes[attribute].as_int() if attribute in node.attributes else usual
