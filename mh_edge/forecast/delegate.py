"""What a file of this package says of its delegate, and how a forecast is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mh_edge.forecast.graph import Check, Graph, Node
from mh_edge.forecast.result import Forecast, Refusal, blockers
from mh_edge.signature import Signature

FOREIGN = "mh-edge did not export this file: whoever did must do what `export` would"
FIXING_TOOL = "python -m onnxruntime.tools.make_dynamic_shape_fixed"

Parts = list[list[Node]]
Dropped = Callable[[Parts], Parts]


@dataclass(frozen=True)
class Delegate:
    """One delegate and one format. predict(graph) -> its forecast; a sentence in its place says why such files are
    nothing for it.
    """

    name: str
    format: str
    predict: Callable[[Graph], Forecast] | str


def predicted(
    graph: Graph,
    check: Check,
    basis: str,
    notes: tuple[str, ...] = (),
    dropped: Dropped = lambda parts: [],
    why: str = "",
) -> Forecast:
    """The forecast of a delegate that takes every node that `check` does not refuse.

    dropped(parts): those partitions that it leaves all the same, and why.
    """
    refusals = {node: check(node, graph) for node in graph.nodes}
    parts = graph.split(frozenset(node for node, refusal in refusals.items() if refusal is None))
    left = dropped(parts)
    for part in left:
        refusals |= dict.fromkeys(part, Refusal(why))
    kept = [part for part in parts if part not in left]
    found = blockers((node.op, refusal) for node, refusal in refusals.items() if refusal is not None)
    foreign = not graph.ours and any(one.fix.startswith("export") for one in found)
    return Forecast(
        nodes=sum(map(len, kept)),
        total=len(graph.nodes),
        partitions=len(kept),
        blockers=found,
        basis=basis,
        notes=(*notes, FOREIGN) if foreign else notes,
    )


def _by_others(signature: Signature) -> str:
    """ONNX Runtime's own tool, for files that mh-edge did not export."""
    lines = []
    for item in signature.inputs:
        if any(isinstance(size, str) for size in item.shape):
            shape = ",".join(str(size) if isinstance(size, int) else "N" for size in item.shape)
            lines.append(f"{FIXING_TOOL} --input_name {item.name} --input_shape {shape}")
    return "; ".join(lines)


def names(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def main_graph(node: Node, graph: Graph) -> Refusal | None:
    """Refuses what lies in the body of a loop or branch."""
    del graph
    return Refusal("it lies in the body of a loop or branch, which stays on the CPU") if node.body else None


def halves(graph: Graph, check: Check) -> Check:
    """TFLite's rule for weights that a DEQUANTIZE unpacks from float16: it vanishes where all else is taken, and stays
    on the CPU where it is not.
    """

    def unpacks(node: Node) -> bool:
        return node.op == "DEQUANTIZE" and node.given[0].constant and node.given[0].dtype == "float16"

    whole = not any(check(node, graph) for node in graph.nodes if not unpacks(node))
    stays = None if whole else Refusal("float16 weights are unpacked on the CPU where it does not take everything")
    return lambda node, graph: stays if unpacks(node) else check(node, graph)


def fixed_sizes(node: Node, graph: Graph) -> Refusal | None:
    """Refuses free sizes among inputs and outputs, and names the options that fix those of the model."""
    free = dict.fromkeys(name for tensor in (*node.given, *node.outputs) for name in tensor.free)
    if not free:
        return None
    # A .tflite does not name its free sizes; where the model has one, it is that.
    known = [name for name in free if name in graph.free] or (graph.free if len(graph.free) == 1 else ())
    what = " and ".join(repr(name) for name in known)
    return Refusal(f"free size {what}" if known else "its size is known only at run time", sizes_fix(graph))


def sizes_fix(graph: Graph) -> str:
    """The options that fix every free size of the inputs; "" where there is none."""
    if not graph.free:
        return ""
    if not graph.ours:
        return _by_others(graph.signature) if graph.format == "onnx" else ""
    options: dict[str, None] = {}
    for name in graph.free:
        long = name == "sequence" or name.endswith("_sequence")
        options["--batch 1" if name == "batch" else "--sequence N" if long else f"--dim {name}=N"] = None
    return f"export {' '.join(options)}"


def rank(node: Node, most: int) -> Refusal | None:
    """Refuses more dimensions."""
    found = max((tensor.rank or 0 for tensor in (*node.computed, *node.outputs)), default=0)
    return Refusal(f"{found} dimensions, at most {most} are taken") if found > most else None
