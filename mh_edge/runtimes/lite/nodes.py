"""The operations of a TFLite graph as the interpreter lists them, and which of them its delegates took.

A delegate adds an entry DELEGATE to the list for each part of the graph that it runs, with the tensors that enter and
leave the part; the operations inside stay in the list. So those inside are the ones met on the way back from what
leaves to what enters.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mh_edge.flatbuffer import rule_of
from mh_edge.runtimes.placement import Fallback

DELEGATE = "DELEGATE"
CONTROL_FLOW = ("WHILE", "IF", "CALL_ONCE")


@dataclass(frozen=True)
class Node:
    """op: "FULLY_CONNECTED". inputs, outputs: indices of tensors, without those that are absent. name: of the first
    output, which the converter builds from the layers. rule: of mh-edge, that made it. dtypes: of what is computed (not
    of constants) in and out. zero_points: of the inputs. scales: how many scales each input and output has, which
    is 0 for plain numbers.
    """

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    name: str
    rule: str
    dtypes: tuple[str, ...]
    zero_points: tuple[int, ...]
    scales: tuple[int, ...]


def listed(interpreter: Any) -> tuple[Node, ...]:
    """The operations of the main graph, DELEGATE entries included."""
    # The interpreter has no public list of its operations.
    operations = interpreter._get_ops_details()
    tensors = {int(item["index"]): item for item in interpreter.get_tensor_details()}
    made = {int(index) for operation in operations for index in operation["outputs"]}
    made |= {int(item["index"]) for item in interpreter.get_input_details()}

    def node(operation: dict[str, Any]) -> Node:
        inputs, outputs = (tuple(int(one) for one in operation[end] if one >= 0) for end in ("inputs", "outputs"))
        computed = [one for one in (*inputs, *outputs) if one in tensors and one in made]
        name = next((str(tensors[one]["name"]) for one in outputs if one in tensors), "").partition(";")[0]
        dtypes = tuple(dict.fromkeys(np.dtype(tensors[one]["dtype"]).name for one in computed))
        zero_points = tuple(int(tensors[one]["quantization"][1]) for one in inputs if one in tensors)
        known = [tensors[one] for one in (*inputs, *outputs) if one in tensors]
        scales = tuple(len(one["quantization_parameters"]["scales"]) for one in known)
        return Node(str(operation["op_name"]), inputs, outputs, name, rule_of(name), dtypes, zero_points, scales)

    return tuple(map(node, operations))


def parts(nodes: Sequence[Node], delegates: Iterable[Node]) -> list[tuple[int, ...]]:
    """For each part that a delegate runs the places among `nodes` of its operations, in order."""
    maker = {tensor: place for place, node in enumerate(nodes) for tensor in node.outputs}
    found = []
    for delegate in delegates:
        inside: set[int] = set()
        ends, waiting = set(delegate.inputs), list(delegate.outputs)
        while waiting:
            tensor = waiting.pop()
            if tensor in ends or tensor not in maker or maker[tensor] in inside:
                continue
            inside.add(maker[tensor])
            waiting.extend(nodes[maker[tensor]].inputs)
        found.append(tuple(sorted(inside)))
    return found


def fallbacks(nodes: Iterable[tuple[Node, str]], where: str) -> tuple[Fallback, ...]:
    """Nodes, each with its reason, by operation and reason."""
    groups: dict[tuple[str, str], list[str]] = {}
    for node, reason in nodes:
        groups.setdefault((node.op, reason), []).append(node.name)
    return tuple(
        Fallback(op, len(names), tuple(filter(None, names)), where, reason) for (op, reason), names in groups.items()
    )
