"""The time of each operation of a TFLite file, from what LiteRT's profiler recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from mh_edge.runtimes.lite.nodes import CONTROL_FLOW, DELEGATE, Node
from mh_edge.runtimes.lite.profiler import INVOKE, KERNEL, OPERATION, Event
from mh_edge.runtimes.placement import OpTime

BUILT_IN = "built-in kernels"

TFLITE_NAMES = {
    "BATCH_MATRIX_MULTIPLY": "BATCH_MATMUL",
    "CONVOLUTION": "CONV_2D",
    "DIVIDE": "DIV",
    "MEAN_SQUARED": "MEAN",
    "MULTIPLY": "MUL",
    "NEGATE": "NEG",
    "RECIPROCAL_SQUARE_ROOT": "RSQRT",
    "SIGMOID": "LOGISTIC",
    "SQUARE_ROOT": "SQRT",
    "STATIC_RESHAPE": "RESHAPE",
    "SUBTRACT": "SUB",
}
"""Kernels of XNNPACK whose TFLite operation has another name than they in capitals."""


def op_times(
    events: Iterable[Event], nodes: Sequence[Node], taken: Sequence[tuple[int, ...]], delegate: str
) -> tuple[OpTime, ...]:
    """Milliseconds of each operation in a call, in the order in which they first ran: the mean of the faster half of
    the calls, because what interrupts the others is no time of an operation, and multiplies their mean.

    A loop itself counts 0 and its body what it takes: around a body's calls the profiler takes longer than the loop.

    nodes: those of the main graph. taken: which of them each part of the delegate has. delegate: its name, "" when the
    built-in kernels are the device. A kernel of XNNPACK carries no name of a tensor: it gets that of the next operation
    of its kind that the delegate took.
    """
    table = _Table(nodes, taken, delegate)
    for event in events:
        table.add(event)
    calls = sorted(filter(None, table.calls), key=Counter.total)
    counted = calls[: (len(calls) + 1) // 2]
    return tuple(
        OpTime(node, op, where, on_device, sum(call[key] for call in counted) / len(counted) / 1e3, rule)
        for key, (node, op, where, on_device, rule) in table.rows.items()
    )


class _Table:
    """rows: what is known of an operation, by where the profiler saw it; calls: its microseconds in each of them."""

    def __init__(self, nodes: Sequence[Node], taken: Sequence[tuple[int, ...]], delegate: str) -> None:
        self.rows: dict[tuple[object, ...], tuple[str, str, str, bool, str]] = {}
        self.calls: list[Counter[tuple[object, ...]]] = [Counter()]
        self._nodes, self._delegate = nodes, delegate
        self._waiting = [nodes[place] for part in taken for place in part]
        self._part: dict[int, tuple[int, int]] = {}  # of each graph: which part of a delegate runs, and its last kernel
        self._loop: tuple[object, ...] = ()  # the key of the one that began last
        self._owners: dict[int, tuple[object, ...]] = {}  # of the graphs of loops: the key of the loop

    def add(self, event: Event) -> None:
        if event.kind == INVOKE:
            self._part[event.graph] = (0, -1)
            if not event.graph and self.calls[-1]:  # several such events stand around the operations of a call
                self.calls.append(Counter())
            if event.graph:
                self._owners.setdefault(event.graph, self._loop)
        elif event.kind in (OPERATION, KERNEL):
            key = self._key(event)
            if key not in self.rows:
                self.rows[key] = self._row(event)
            if event.name in CONTROL_FLOW:
                self._loop = key
            self.calls[-1][key] += 0 if event.name in CONTROL_FLOW else event.us

    def _key(self, event: Event) -> tuple[object, ...]:
        if event.kind == OPERATION:
            return OPERATION, event.graph, event.place
        part, last = self._part[event.graph]
        part += event.place <= last
        self._part[event.graph] = (part, event.place)
        return KERNEL, event.graph, event.place, part

    def _row(self, event: Event) -> tuple[str, str, str, bool, str]:
        kernel = event.kind == KERNEL or event.name == DELEGATE
        where, on_device = (self._delegate, True) if kernel else (BUILT_IN, not self._delegate)
        if event.graph:
            loop, _, _, _, rule = self.rows[self._owners[event.graph]]
            return loop, event.name, where, on_device, rule
        if not kernel:
            node = self._nodes[event.place]
            return node.name, node.op, where, on_device, node.rule
        kind = event.name.partition(" (")[0].upper().replace(" ", "_")
        op = TFLITE_NAMES.get(kind, kind)
        for place, node in enumerate(self._waiting):
            if node.op == op:
                del self._waiting[: place + 1]
                return node.name, op, where, on_device, node.rule
        return "", event.name, where, on_device, ""
