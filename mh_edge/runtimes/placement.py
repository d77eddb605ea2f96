"""Where the nodes of an opened artifact went, and how long each of its operations takes: what a runtime itself tells.

A node is one of the graph as the runtime runs it, after its own optimizations; one that was fused with others counts
for those that it stands for where the runtime tells them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Fallback:
    """Nodes of one operation that the device did not take. nodes: their names, as far as they have any. where: what ran
    them instead. reason: why, as far as the runtime or the graph tells; empty when neither does.
    """

    op: str
    count: int
    nodes: tuple[str, ...]
    where: str
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"nodes": list(self.nodes)}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Fallback:
        return cls(data["op"], data["count"], tuple(data["nodes"]), data["where"], data["reason"])


@dataclass(frozen=True)
class Placement:
    """nodes: all. on_device: those that the device runs. partitions: in how many parts it runs them. fallbacks: the
    others. proof: what says so, as a short phrase ("ONNX Runtime's record of node assignment").
    """

    nodes: int
    on_device: int
    partitions: int
    fallbacks: tuple[Fallback, ...]
    proof: str

    @property
    def whole(self) -> bool:
        """Whether all of it runs on the device."""
        return self.on_device == self.nodes and not self.fallbacks

    @property
    def elsewhere(self) -> dict[str, str]:
        """What did not run on the device, by where it ran: `CAST×2, WHERE (XNNPACK has no such operation); WHILE`."""
        found: dict[str, dict[str, list[str]]] = {}
        for one in self.fallbacks:
            times = f"×{one.count}" if one.count > 1 else ""
            found.setdefault(one.where, {}).setdefault(one.reason, []).append(f"{one.op}{times}")
        return {
            where: "; ".join(", ".join(ops) + (f" ({reason})" if reason else "") for reason, ops in reasons.items())
            for where, reasons in found.items()
        }

    def to_json(self) -> dict[str, Any]:
        return {
            "nodes": self.nodes,
            "on_device": self.on_device,
            "partitions": self.partitions,
            "fallbacks": [one.to_json() for one in self.fallbacks],
            "proof": self.proof,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Placement:
        fallbacks = tuple(map(Fallback.from_json, data["fallbacks"]))
        return cls(data["nodes"], data["on_device"], data["partitions"], fallbacks, data["proof"])


@dataclass(frozen=True)
class OpTime:
    """node: its name ("heads/LSTM", empty when it has none). op: "MatMul". on_device: whether the device itself ran it,
    where: what did ("CPUExecutionProvider", "XNNPACK"). ms: milliseconds in a call, the mean of the faster half
    of the calls. rule: of mh-edge, that made the node ("" for none).
    """

    node: str
    op: str
    where: str
    on_device: bool
    ms: float
    rule: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> OpTime:
        return cls(**data)
