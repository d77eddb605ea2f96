"""Which execution provider got each node, from ONNX Runtime's own record of it; why, from its log.

The record holds the nodes after the level-1 optimizations, before providers fuse what they took; it has the nodes of
control-flow bodies too. An ONNX Runtime without that record (before 1.24) tells by the profile of one run, which holds
the nodes as fused, and of two branches the one that ran.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mh_edge.packages import require
from mh_edge.runtimes.placement import Fallback, Placement

RECORD = "session.record_ep_graph_assignment_info"
"""The session option without which there is no record. It costs about 1 % of the time that opening takes."""

PROOF = "ONNX Runtime's record of node assignment"

REASONS = {
    re.compile(r"kernel not found in registries for Op type: .*? node name: (?P<node>.*)$"): "it has no kernel for it",
    re.compile(r"Force fallback to CPU execution for node: (?P<node>.*?)(?: because .*)?$"): (
        "ONNX Runtime keeps arithmetic on shapes on the CPU"
    ),
}
"""What providers log of a node that they do not take, and what it says."""

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Assigned:
    """A node and the execution provider that got it. part: number of the group in which it got it."""

    name: str
    op: str
    provider: str
    part: int


def recorded(session: Any) -> tuple[Assigned, ...] | None:
    """What an InferenceSession records, or None where this ONNX Runtime has no record."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return None
    return tuple(
        Assigned(node.name, node.op_type, group.ep_name, number)
        for number, group in enumerate(session.get_provider_graph_assignment_info())
        for node in group.get_nodes()
    )


def placed(
    nodes: Iterable[Assigned],
    provider: str,
    proof: str,
    edges: Callable[[], Iterable[tuple[str, str]]] = tuple,
    reasons: Callable[[], Mapping[str, str]] = dict,
) -> Placement:
    """The placement for one provider; the others are fallbacks, one for each operation, provider and reason.

    edges: pairs of names of connected nodes in the order of the graph, reasons: name of a node -> why it fell back;
    both are asked only where something did.
    """
    nodes = tuple(nodes)
    own = [node for node in nodes if node.provider == provider]
    whole = len(own) == len(nodes)
    partitions = len({node.part for node in own})
    if partitions == len(own):  # a provider of kernels is recorded node by node, one that compiles part by part
        partitions = min(1, len(own)) if whole else _parts(nodes, provider, edges())
    why = {} if whole else reasons()
    groups: defaultdict[tuple[str, str, str], list[str]] = defaultdict(list)
    for node in nodes:
        if node.provider != provider:
            groups[node.op, node.provider, why.get(node.name, "")].append(node.name)
    fallbacks = tuple(
        Fallback(op, len(names), tuple(filter(None, names)), where, reason)
        for (op, where, reason), names in sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    )
    return Placement(len(nodes), len(own), partitions, fallbacks, proof)


def _parts(nodes: tuple[Assigned, ...], provider: str, edges: Iterable[tuple[str, str]]) -> int:
    """In how many parts the provider can run its nodes: those with as many changes from others to it on the way from
    the inputs, at most, run together, as a provider that compiles cuts them. A name that several nodes have tells
    nothing.
    """
    counted = Counter(node.name for node in nodes)
    own = {node.name: node.provider == provider for node in nodes if counted[node.name] == 1}
    changes = dict.fromkeys(own, 0)
    for one, other in edges:
        if one in own and other in own:
            changes[other] = max(changes[other], changes[one] + (own[other] and not own[one]))
    return len({changes[name] for name in own if own[name]}) or int(any(node.provider == provider for node in nodes))


def edges_of(optimized: Path) -> Iterator[tuple[str, str]]:
    """Pairs of names, in the order in which the nodes may run: a node that makes a tensor, and one of the same graph
    that takes it.
    """
    onnx = require("onnx", "cpu", "counting partitions")
    graphs = [onnx.load_model(str(optimized), load_external_data=False).graph]
    while graphs:
        graph = graphs.pop()
        maker = {output: node.name for node in graph.node for output in node.output if output}
        for node in graph.node:
            yield from ((maker[name], node.name) for name in node.input if name in maker)
            graphs += [attribute.g for attribute in node.attribute if attribute.HasField("g")]


def reasons_in(log: str) -> dict[str, str]:
    """Name of a node -> why a provider did not take it, as the log of opening a file says."""
    found = {}
    for line in log.splitlines():
        for pattern, reason in REASONS.items():
            if (match := pattern.search(line)) is not None:
                found[match["node"].strip()] = reason
    return found


@contextmanager
def overheard(repeat: bool = False) -> Iterator[Callable[[], str]]:
    """Gives what is written to file descriptor 2 within, which is where ONNX Runtime logs. repeat: write it there
    afterwards.
    """
    with tempfile.TemporaryFile() as file:
        before = os.dup(2)
        os.dup2(file.fileno(), 2)

        def text() -> str:
            file.seek(0)
            return COLOUR.sub("", file.read().decode(errors="replace"))

        try:
            yield text
        finally:
            os.dup2(before, 2)
            os.close(before)
            if repeat:
                os.write(2, text().encode())
