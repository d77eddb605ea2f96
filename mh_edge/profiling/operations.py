"""Times of operations added up: by what they are, by the rule that made them, by the head of MultiHead they belong to.

In .tflite files, and where a head's layer has a rule of its own, the name of an operation tells the head; other heads
that stand apart in an .onnx file are the operations of one kind, numbered in their order, which the manifest's choices
tell of.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from mh_edge.artifact import Choice
from mh_edge.layerpaths import MARK, titles
from mh_edge.runtimes.placement import OpTime
from mh_edge.units import duration

NO_RULE = "(no rule of mh-edge)"
OUTSIDE = "(other operations)"
AROUND = "around its heads"
MERGED = "merged into one operation, so heads have no time of their own"
MIXED = "some heads are merged into one operation, from which the others cannot be told apart"
UNTOLD = "its heads cannot be told apart"

RULE = "MultiHead"

TICK_MS = 1e-3
"""The clocks of the runtimes' profilers count whole microseconds, and less as none."""

MOVING = frozenset(("Concat", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"))
"""Operations that cut and stack, for all heads as for one."""

PRODUCTS = frozenset(("Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN"))
"""Operations of which a head has at least one."""

_APART = re.compile(r" apart: head ([\d, ]+)$")
_TOGETHER = re.compile(r"\bheads (as|in) ")
_NUMBERED = re.compile(r"([A-Za-z]+)(?:_(\d+))?")
_WIDE = "_wide"
"""What the layer is called that stands for several recurrent heads."""


@dataclass(frozen=True)
class Share:
    """ms: in a call. share: of the time of all operations. count: of the operations."""

    name: str
    ms: float
    share: float
    count: int

    @property
    def time(self) -> str:
        """As people read it: what is below the clock's tick is not nothing."""
        return duration(self.ms) if self.ms >= TICK_MS else "<1 µs each" if self.count > 1 else "<1 µs"


def by_op(ops: Iterable[OpTime]) -> tuple[Share, ...]:
    """By the kind of operation, the longest time first."""
    return _slowest(ops, lambda one: one.op)


def by_rule(ops: Iterable[OpTime]) -> tuple[Share, ...]:
    """By the rule that made them, the longest time first."""
    return _slowest(ops, lambda one: one.rule or NO_RULE)


def by_head(ops: Iterable[OpTime], choices: Iterable[Choice] = ()) -> tuple[Share, ...]:
    """By the heads of each MultiHead in their order, what is around them, and the rest; () where there is no MultiHead.

    choices: of the manifest; without them, heads that the names of operations do not tell are not told.
    """
    ops = tuple(ops)
    paths = [_path(one) for one in ops]
    layers = {layer for one, path in zip(ops, paths, strict=True) for layer in _layers(one, path)}
    format = "tflite" if any(MARK in one.node for one in ops) else "onnx"
    shown = titles(("/".join(path[: length + 1]) for path in paths for length in range(len(path))), format)
    chosen: dict[str, list[str]] = {}
    for choice in choices:
        chosen.setdefault(choice.layer, []).append(choice.choice)
    if format == "onnx":  # where all heads have paths of their own, or became a wider layer, no operation has the rule
        layers |= {tuple(layer.split("/")) for layer, made in chosen.items() if any(map(_of_heads, made))}
    inside: dict[tuple[str, ...], list[int]] = {}
    for place, path in enumerate(paths):
        if around := min((layer for layer in layers if path[: len(layer)] == layer), key=len, default=None):
            inside.setdefault(around, []).append(place)
    named: dict[int, str] = {}
    for layer, places in inside.items():
        own = "/".join(layer)
        title = shown.get(own, own)
        heads = _heads(
            [ops[place] for place in places], [paths[place][len(layer) :] for place in places], chosen.get(title, [])
        )
        for place, head in zip(places, heads, strict=True):
            told = head not in (MERGED, MIXED, AROUND, UNTOLD)
            named[place] = shown.get(f"{own}/{head}", f"{title}/{head}") if told else f"{title}: {head}"
    found = _shares(ops, [named.get(place, OUTSIDE) for place in range(len(ops))])
    return tuple(sorted(found, key=lambda one: (one.name == OUTSIDE, *_natural(one.name)))) if inside else ()


def _slowest(ops: Iterable[OpTime], name: Callable[[OpTime], str]) -> tuple[Share, ...]:
    ops = tuple(ops)
    return tuple(sorted(_shares(ops, [name(one) for one in ops]), key=lambda one: -one.ms))


def _shares(ops: Sequence[OpTime], names: Sequence[str]) -> list[Share]:
    total, counts = sum(one.ms for one in ops), Counter(names)
    times = {name: sum(one.ms for one, of in zip(ops, names, strict=True) if of == name) for name in counts}
    return [Share(name, ms, ms / total if total else 0.0, counts[name]) for name, ms in times.items()]


def _path(one: OpTime) -> tuple[str, ...]:
    """The layers in its name, without rules."""
    return tuple(segment for segment in one.node.split("/")[:-1] if not segment.startswith(MARK))


def _layers(one: OpTime, path: tuple[str, ...]) -> list[tuple[str, ...]]:
    """The MultiHead that an operation tells of, if it does."""
    segments = one.node.split("/")
    if MARK + RULE in segments:
        before = segments[: segments.index(MARK + RULE)]
        return [tuple(segment for segment in before if not segment.startswith(MARK))]
    return [path] if one.rule == RULE and path and MARK not in one.node else []


def _of_heads(choice: str) -> bool:
    return bool(_APART.search(choice) or _TOGETHER.search(choice))


def _heads(ops: Sequence[OpTime], below: Sequence[tuple[str, ...]], choices: Sequence[str]) -> list[str]:
    """What each operation of a MultiHead is of. below: the path of each below that of the layer."""
    merged = any(_TOGETHER.search(choice) for choice in choices)
    apart = [number.strip() for choice in choices if (found := _APART.search(choice)) for number in found[1].split(",")]
    branches = [path[0] if path and not (merged and path[0].endswith(_WIDE)) else "" for path in below]
    numbered = [
        _NUMBERED.match(one.node.rpartition("/")[2]) if not path else None for one, path in zip(ops, below, strict=True)
    ]
    places: dict[str, set[int]] = {}
    for match in numbered:
        if match is not None and match[1] not in MOVING:
            places.setdefault(match[1], set()).add(int(match[2] or 0))
    each = {kind: sorted(found) for kind, found in places.items() if len(found) == len(apart)}
    if merged or any(branches) or not PRODUCTS & each.keys():  # heads that differ may have as many of something, too
        each = {}
    rest = AROUND if any(branches) or each else UNTOLD
    if merged:
        rest = MIXED if apart and not any(branches) else MERGED
    return [
        branch or (f"head {apart[each[match[1]].index(int(match[2] or 0))]}" if match and match[1] in each else rest)
        for branch, match in zip(branches, numbered, strict=True)
    ]


def _natural(name: str) -> list[Hashable]:
    """Names in the order of the numbers in them."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
