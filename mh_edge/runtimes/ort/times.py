"""Milliseconds of each operation from ONNX Runtime's profile: a list of Chrome-trace events, of which `cat == "Node"`
with the name `<node>_kernel_time` is one run of one kernel.

The event of a Loop lasts as long as the nodes of its body, which have events of their own: it gets what is left without
them, so that no time counts twice.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from mh_edge.inspection import RULE_KEY
from mh_edge.packages import require
from mh_edge.runtimes.placement import OpTime

SUFFIX = "_kernel_time"

PREFIXES = ("fused ", "InsertedPrecisionFreeCast_")
"""What ONNX Runtime puts before the name of a node that it makes of another."""

WITH_BODIES = frozenset({"If", "Loop", "Scan", "SequenceMap"})


def op_times(events: Iterable[Mapping[str, Any]], provider: str, calls: int, rules: Mapping[str, str]) -> list[OpTime]:
    """The mean of the faster half of the last so many runs of the model, in the order in which the nodes began: what
    interrupts the others is no time of an operation, and multiplies their mean.

    rules: name of a node of the file -> rule. A fused node has a name of its own, or that of one that went into it.
    """
    events = tuple(events)
    runs = sorted((int(event["ts"]), int(event["dur"])) for event in events if event["name"] == "model_run")[-calls:]
    counted = sorted(runs, key=itemgetter(1))[: (len(runs) + 1) // 2]
    ends = {begin: begin + lasted for begin, lasted in counted}
    begun = sorted(ends)
    # Of two that begin in the same microsecond, the longer one is around the other.
    kernels = sorted(
        (event for event in events if event.get("cat") == "Node" and event["name"].endswith(SUFFIX)),
        key=lambda event: (int(event["ts"]), -int(event["dur"])),
    )
    total: defaultdict[tuple[str, str, str], float] = defaultdict(float)
    around: list[tuple[int, tuple[str, str, str]]] = []
    for kernel in kernels:
        begin, lasted = int(kernel["ts"]), int(kernel["dur"])
        run = bisect_right(begun, begin)
        if not run or begin > ends[begun[run - 1]]:
            continue
        op, where = kernel["args"]["op_name"], kernel["args"]["provider"]
        name = kernel["name"].removesuffix(SUFFIX)
        key = ("" if name == f"{op}_{kernel['args']['node_index']}" and name not in rules else name, op, where)
        total[key] += lasted
        while around and begin >= around[-1][0]:
            around.pop()
        if around:
            total[around[-1][1]] -= lasted
        if op in WITH_BODIES:
            around.append((begin + lasted, key))
    return [
        OpTime(name, op, where, where == provider, max(0.0, spent) / 1e3 / len(counted), _rule(name, rules))
        for (name, op, where), spent in total.items()
    ]


def _rule(name: str, rules: Mapping[str, str]) -> str:
    """Of the node of that name, or of the one whose name what ONNX Runtime made of it begins with."""
    for prefix in PREFIXES:
        name = name.removeprefix(prefix)
    begun = [known for known in rules if known and name.startswith(known) and not name[len(known) :][:1].isalnum()]
    return rules[max(begun, key=len)] if begun else ""


def rules_of(path: Path) -> dict[str, str]:
    """Name of each node of an .onnx file -> the rule of mh-edge that made it, "" for none; a node of a body has that of
    the node around it where it has none itself.
    """
    onnx = require("onnx", "cpu", "the time of each rule")
    found: dict[str, str] = {}

    def walk(graph: Any, outer: str) -> None:
        for node in graph.node:
            rule = next((item.value for item in node.metadata_props if item.key == RULE_KEY), outer)
            found[node.name] = rule
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    walk(attribute.g, rule)

    walk(onnx.load_model(str(path), load_external_data=False).graph, "")
    return found
