"""Products of token sequences as the one operation that runtimes know best: Gemm, with its bias.

A MatMul of an activation of rank > 2 with a constant matrix, and the Add of its bias, are one product of matrices:

    x (…, K) W (K, N) + b (N,)  =  Reshape(Gemm(Flatten(x) (P, K), W, b), (…, N)),    P = product of the sizes …

and what works on each token by itself (activations, sums, LayerNormalization) is the same on (P, N), so that only the
first Flatten and the last Reshape of a chain remain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

Size = int | str | None
"""Of an axis: a number, the name of a free size, or unknown."""

_ELEMENTWISE = frozenset(
    ("Abs", "Add", "Cast", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu")
    + ("Log", "Max", "Min", "Mish", "Mul", "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Selu", "Sigmoid", "Softplus")
    + ("Softsign", "Sqrt", "Sub", "Swish", "Tanh", "ThresholdedRelu", "Where")
)
"""Operations that broadcast their inputs and then work on each number by itself."""

_SHAPE_OF_A_PART = 15
"""The opset from which Shape gives the sizes of some axes."""


def as_gemms(model: onnx.ModelProto) -> onnx.ModelProto:
    """x W + b of rank > 2 -> Gemm between Flatten and Reshape, in any .onnx file; the model given is left as it is.

    Taken are float32 products with a constant W (K, N) and a constant b (N,), of the outermost graph. Tensors that
    stay keep their names; a Gemm has the name of its MatMul; what is new has names made of those, the same every time.
    The result differs from the model by the order of summation only.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass

    known = ir.serde.deserialize_model(model)
    ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(known)
    result = ir.serde.deserialize_model(model)
    _Flattening(result.graph, known.graph).run()
    result.ir_version = max(result.ir_version, 4)  # before it, constants had to be inputs
    return ir.serde.serialize_model(result)


class _Flattening:
    """One pass over a graph. Values are known by the names that they had: flat[name] is the value of rank 2."""

    def __init__(self, graph: ir.Graph, known: ir.Graph) -> None:
        self.graph = graph
        self.opset = graph.opset_imports.get("", 1)
        self.sizes: dict[str, tuple[Size, ...]] = {}
        for value in _values(known):
            if value.name and value.shape is not None:
                self.sizes[value.name] = tuple(
                    size if isinstance(size, int) else size.value for size in value.shape.dims
                )
        self.dtypes = {value.name: value.dtype for value in _values(known)}
        self.taken = {value.name for value in _values(graph)} | {node.name for node in graph.all_nodes()}
        self.flat: dict[str, ir.Value] = {}
        self.root: dict[str, ir.Value] = {}
        self.whole: set[str] = set()
        self.targets: dict[tuple[Size | ir.Value, ...], ir.Value] = {}
        self.wanted: set[str] = set()

    def run(self) -> None:
        nodes = list(self.graph)
        products = {id(node): found for node in nodes if (found := self._product(node)) is not None}
        inner = {id(matmul) for matmul, _ in products.values()}
        for node in reversed(nodes):
            if id(node) in products:
                self.wanted.add(_name(products[id(node)][0].inputs[0]))
            elif _name(node.outputs[0]) in self.wanted:
                self.wanted |= set(self._token_wise(node) or ())
        gone: list[ir.Node] = []
        for node in nodes:
            if id(node) in inner:
                continue
            if id(node) in products:
                matmul, bias = products[id(node)]
                flat = self._flat(matmul.inputs[0], node)
                made = self._make("Gemm", [flat, matmul.inputs[1], bias], node, name=matmul.name)
                gone += [matmul, node]
                self._replace(node, made, matmul.inputs[0])
            elif self._wants_flat(node):
                names = self._token_wise(node) or []
                inputs = [self._flat(value, node) if _name(value) in names else value for value in node.inputs]
                made = self._make(node.op_type, inputs, node, name=node.name, like=node)
                gone.append(node)
                self._replace(node, made, next(value for value in node.inputs if _name(value) in names))
            elif not self._reshaped(node):
                for value in node.inputs:
                    self._restore(value, node)
        for node in reversed(gone):
            self.graph.remove(node, safe=True)
        self._tidy()

    def _size(self, value: ir.Value | None) -> tuple[Size, ...] | None:
        return self.sizes.get(_name(value))

    def _product(self, node: ir.Node) -> tuple[ir.Node, ir.Value] | None:
        """The MatMul and the bias, where the node is the Add of a product that a Gemm can take."""
        if node.op_type != "Add" or node.domain:
            return None
        for value, bias in (node.inputs, node.inputs[::-1]):
            matmul = None if value is None else value.producer()
            if matmul is None or matmul.op_type != "MatMul" or matmul.domain or value is None or bias is None:
                continue
            x, weight = matmul.inputs
            size, sizes = self._size(x), self._size(weight)
            if (
                x is not None
                and size is not None
                and len(size) >= 2
                and _constant(weight)
                and _constant(bias)
                and sizes is not None
                and len(sizes) == 2
                and self._size(bias) == sizes[1:]
                and len(value.uses()) == 1
                and not value.is_graph_output()
                and self.dtypes.get(_name(x)) == self.dtypes.get(_name(weight)) == 1
            ):
                return matmul, bias
        return None

    def _token_wise(self, node: ir.Node) -> list[str] | None:
        """The inputs to flatten for the node to give its result flat; None where it does not treat each token alike."""
        out = self._size(node.outputs[0])
        if node.domain or out is None or len(out) < 3 or None in out or any(o.uses() for o in node.outputs[1:]):
            return None
        full: list[ir.Value | None]
        rest: Sequence[ir.Value | None]
        if node.op_type in _ELEMENTWISE:
            full, rest = [], []
            for value in node.inputs:
                (full if (self._size(value) or ())[:-1] == out[:-1] else rest).append(value)
        elif node.op_type == "LayerNormalization" and _axis(node, -1) in (-1, len(out) - 1):
            full, rest = list(node.inputs[:1]), node.inputs[1:]
        elif node.op_type == "MatMul" and _constant(node.inputs[1]) and len(self._size(node.inputs[1]) or ()) == 2:
            return [_name(node.inputs[0])]
        else:
            return None
        if not full or any(value is not None and len(self._size(value) or (0, 0)) > 1 for value in rest):
            return None
        return list(dict.fromkeys(_name(value) for value in full))

    def _wants_flat(self, node: ir.Node) -> bool:
        names = self._token_wise(node)
        if not names:
            return False
        missing = sum(name not in self.flat for name in names)
        return missing == 0 or (missing == 1 and _name(node.outputs[0]) in self.wanted)

    def _flat(self, value: ir.Value | None, before: ir.Node) -> ir.Value | None:
        """The value as a matrix, made once."""
        name, sizes = _name(value), self._size(value) or ()
        if value is None or len(sizes) == 2:
            return value
        if name not in self.flat:
            made = self._make("Flatten", [value], before, axis=len(sizes) - 1, base=name)
            self.flat[name], self.root[name] = made, value
            self.whole.add(name)
        return self.flat[name]

    def _replace(self, node: ir.Node, made: ir.Value, source: ir.Value | None) -> None:
        """Let the flat value stand for the result; bring that back at once where a subgraph or the user sees it."""
        value = node.outputs[0]
        sizes = self._size(value) or ()
        if len(sizes) == 2:
            made.type, made.shape, made.name = value.type, value.shape, value.name
            value.replace_all_uses_with(made, replace_graph_outputs=True)
            return
        name = _name(value)
        made.name = self._unique(f"{name}/2d")
        self.flat[name], self.root[name] = made, self.root[_name(source)]
        if value.is_graph_output() or any(use.node.graph is not self.graph for use in value.uses()):
            self._restore(value, node)

    def _restore(self, value: ir.Value | None, before: ir.Node) -> None:
        """Put the value of full rank back, before the node that needs it."""
        import onnx_ir as ir

        name = _name(value)
        if value is None or name not in self.flat or name in self.whole:
            return
        self.whole.add(name)
        made = self._make("Reshape", [self.flat[name], self._target(name, before)], before, base=name)
        made.type, made.shape = value.type, value.shape
        if made.shape is None:
            made.dtype, made.shape = self.dtypes[name], ir.Shape(self.sizes[name])
        value.replace_all_uses_with(made, replace_graph_outputs=True)
        value.name, made.name = None, name

    def _target(self, name: str, before: ir.Node) -> ir.Value:
        """What to give Reshape: a constant where at most one size is free, else the sizes of the tensor flattened."""
        sizes, root = self.sizes[name], self.root[name]
        if sum(not isinstance(size, int) for size in sizes) <= 1:
            return self._numbers([size if isinstance(size, int) else -1 for size in sizes])
        key = (root, sizes[-1])
        if key not in self.targets:
            base = _name(root)
            if (root, None) not in self.targets:
                if self.opset >= _SHAPE_OF_A_PART:
                    leading = self._make("Shape", [root], before, end=len(sizes) - 1, base=base)
                else:
                    whole = self._make("Shape", [root], before, base=base)
                    ends = [self._numbers([0]), self._numbers([len(sizes) - 1])]
                    leading = self._make("Slice", [whole, *ends], before, base=base)
                self.targets[root, None] = leading
            sizes_of_all = [
                self.targets[root, None],
                self._numbers([size for size in sizes[-1:] if isinstance(size, int)]),
            ]
            self.targets[key] = self._make("Concat", sizes_of_all, before, axis=0, base=base)
        return self.targets[key]

    def _reshaped(self, node: ir.Node) -> bool:
        """A Reshape to sizes that do not ask what they were takes the flat value as well."""
        sizes = self._size(node.outputs[0])
        if node.op_type != "Reshape" or node.domain or _name(node.inputs[0]) not in self.flat or sizes is None:
            return False
        if not _constant(node.inputs[1]) or sum(not isinstance(size, int) for size in sizes) > 1 or 0 in sizes:
            return False
        node.replace_input_with(0, self.flat[_name(node.inputs[0])])
        node.replace_input_with(1, self._numbers([size if isinstance(size, int) else -1 for size in sizes]))
        return True

    def _make(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        before: ir.Node,
        *,
        base: str = "",
        name: str | None = None,
        like: ir.Node | None = None,
        **attributes: int,
    ) -> ir.Value:
        """An operation before a node, in its layer. base: of the result's name. like: whose attributes to take."""
        import onnx_ir as ir

        if name is None:
            name = self._unique("/".join([*(before.name or "").split("/")[:-1], op_type]))
        made = ir.node(op_type, inputs, attributes or None, name=name)
        if like is not None:
            made.attributes.update(like.attributes)
            if "axis" in made.attributes:
                made.attributes.add(ir.AttrInt64("axis", -1))
        made.metadata_props.update(before.metadata_props)
        if base:
            made.outputs[0].name = self._unique(f"{base}/{op_type.lower()}")
        self.graph.insert_before(before, made)
        return made.outputs[0]

    def _numbers(self, numbers: Sequence[int]) -> ir.Value:
        import onnx_ir as ir

        key = tuple(numbers)
        if key not in self.targets:
            name = self._unique("sizes/" + "x".join(map(str, numbers)))
            value = ir.Value(name=name, const_value=ir.tensor(np.array(numbers, np.int64), name=name))
            value.type, value.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([len(key)])
            self.graph.register_initializer(value)
            self.targets[key] = value
        return self.targets[key]

    def _unique(self, name: str) -> str:
        count, found = 0, name
        while found in self.taken:
            count += 1
            found = f"{name}_{count}"
        self.taken.add(found)
        return found

    def _tidy(self) -> None:
        """Drop the constants that only what is gone used."""
        for name, value in list(self.graph.initializers.items()):
            if not value.uses() and not value.is_graph_input() and not value.is_graph_output():
                del self.graph.initializers[name]


def _values(graph: ir.Graph) -> Iterable[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph.all_nodes():
        yield from node.outputs


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _constant(value: ir.Value | None) -> bool:
    """Whether nobody can change it: an initializer that is no input, or the result of Constant."""
    if value is None or value.is_graph_input():
        return False
    producer = value.producer()
    return value.is_initializer() or (producer is not None and producer.op_type == "Constant" and not producer.domain)


def _axis(node: ir.Node, usual: int) -> int:
    attribute = node.attributes.get("axis")
    return usual if attribute is None else attribute.as_int()
