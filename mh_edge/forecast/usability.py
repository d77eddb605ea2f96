"""Which operations ONNX Runtime's own usability checker knows for a mobile execution provider."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mh_edge.forecast.graph import Check, Graph, Node
from mh_edge.forecast.onnxgraph import PURPOSE
from mh_edge.forecast.result import Refusal
from mh_edge.packages import require, version

CHECKER = "onnxruntime.tools.mobile_helpers.usability_checker"


def listed(partitions: Callable[[Any, Any], Any], who: str, fixes: Mapping[str, str]) -> Check:
    """Refuses operations that the checker does not know. partitions(checker, model): one of its functions, of which
    only the list that it reads is used. fixes: option by operation.
    """
    import onnx

    empty = onnx.helper.make_model(onnx.helper.make_graph([], "empty", [], []))
    known = partitions(require(CHECKER, "cpu", PURPOSE), empty).supported_ops_checker

    def check(node: Node, graph: Graph) -> Refusal | None:
        del graph
        domain, _, operation = node.op.rpartition(".")
        if known.is_op_supported(onnx.helper.make_node(operation, [], [], domain=domain)):
            return None
        return Refusal(f"{who} has no such operation", fixes.get(node.op, ""))

    return check


def basis(what: str) -> str:
    """Where the knowledge comes from."""
    checker = f"the list of operations of onnxruntime {version('onnxruntime')}'s usability checker ({what})"
    return f"{checker}, and the types and ranks that its op builders take"
