"""Masks of their own: where one mask serves several readers that must not be served alike, some get a copy.

A mask is cut off for a softmax (see masks.py), and must not be for what else reads it: an output of the model, a
softmax that stays in float. And of softmaxes whose R differs much, each kind wants its own.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mh_edge.quantization.tflite.mask_sites import Site, Sites
from mh_edge.quantization.tflite.model import Operation, constant

NEAR = 1.5
"""Softmaxes whose R differs by more get masks of their own: that of the widest would leave the others few steps."""


def separate(masks: Sites, sites: Sequence[Site]) -> dict[str, str]:
    """Give copies of masks, in the model itself, to softmaxes with much less R than others that read the same, and to
    all where something else reads it -> name of each new tensor and of that which it copies.
    """
    levels: list[float] = []
    for room in sorted({site.room for site in sites}, reverse=True):
        if not levels or room * NEAR < levels[-1]:
            levels.append(room)
    graph = masks.model.subgraphs[0]
    shared = masks.read_elsewhere(sites)
    copies: dict[str, str] = {}
    clones: dict[int, list[Any]] = {}
    for number, level in enumerate(levels):
        here = [site for site in sites if level == next(each for each in levels if site.room * NEAR >= each)]
        wanted = shared & {part for site in here for part in site.deep}
        own = _Copies(masks, wanted, shared, f"#mask{number}", clones)
        for site in here:
            own.reread(masks.maker[site.total], {site.mask: own.of(site.mask)})
        copies |= own.names
        shared = shared | {part for site in here for part in site.parts}
    graph.operators = [each for index, one in enumerate(graph.operators) for each in (one, *clones.get(index, ()))]
    return copies


@dataclass
class _Copies:
    """Copies of tensors, and of the operations that make them, for some sites. wanted: what is cut off for these and
    must not be for others. shared: all that others read. clones: by the operation that they follow.
    """

    masks: Sites
    wanted: set[int]
    shared: set[int]
    suffix: str
    clones: dict[int, list[Any]]
    names: dict[str, str] = field(default_factory=dict)
    _made: dict[int, int] = field(default_factory=dict)

    def of(self, tensor: int) -> int:
        """What to read in place of a tensor: itself, where nothing of it is wanted."""
        if tensor not in self._made:
            self._made[tensor] = self._own(tensor)
        return self._made[tensor]

    def reread(self, one: Operation, instead: Mapping[int, int]) -> None:
        """Let an operation read other tensors."""
        operator = self.masks.model.subgraphs[0].operators[one.index]
        operator.inputs = [instead.get(tensor, tensor) for tensor in one.inputs]

    def _own(self, tensor: int) -> int:
        one = self.masks.maker.get(tensor)
        if one is None:
            is_input = constant(self.masks.model, tensor) is None
            return tensor if is_input or tensor not in self.wanted else self._copied(tensor)
        instead = {each: self.of(each) for each in self.masks.sources(one)}
        renewed = any(old != new for old, new in instead.items())
        if tensor in self.wanted or (renewed and tensor in self.shared):
            clone = copy.deepcopy(self.masks.model.subgraphs[0].operators[one.index])
            made = self._copied(tensor)
            clone.inputs, clone.outputs = [instead.get(each, each) for each in one.inputs], [made]
            self.clones.setdefault(one.index, []).append(clone)
            return made
        if renewed:
            self.reread(one, instead)
        return tensor

    def _copied(self, tensor: int) -> int:
        tensors = self.masks.model.subgraphs[0].tensors
        tensors.append(copy.copy(tensors[tensor]))
        tensors[-1].name += self.suffix.encode()
        self.names[tensors[-1].name.decode()] = self.masks.names[tensor]
        return len(tensors) - 1
