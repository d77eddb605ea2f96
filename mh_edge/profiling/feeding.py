"""The inputs that artifacts are compared and timed on: drawn from the signature, or the user's own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mh_edge.errors import InputError, UsageError
from mh_edge.runtimes.base import Scale, check_feeds
from mh_edge.signature import Dim, Signature
from mh_edge.verification.feeds import Spec, build

Arrays = Mapping[str, np.ndarray]

BATCH, SEQUENCE = 1, 64
"""Free sizes where none are asked for."""

SPECS = (("normal", "none"), ("normal", "right"), ("normal", "none"))
"""Values and mask of the feeds that are drawn; the first one is timed."""

FEEDS = len(SPECS)

SEED = 0

LABELS = re.compile(r"labels(\.|$)")


@dataclass(frozen=True)
class Sizes:
    """The sizes asked for. batch: of the first axis, sequence: of every size called 'sequence' or '..._sequence'. dims:
    of any free size, by name.
    """

    batch: int | None = None
    sequence: int | None = None
    dims: Mapping[str, int] = field(default_factory=dict)

    def bind(self, signature: Signature) -> dict[str, int]:
        """A number for each free size. Raises UsageError for a size that is not free."""
        free = signature.free_dims()
        first = {tensor.shape[0] for tensor in signature.inputs if tensor.shape}
        others = {dim for tensor in signature.inputs for dim in tensor.shape[1:]}
        self._require("--batch", self.batch, first)
        self._require("--sequence", self.sequence, others)
        if unknown := [name for name in self.dims if name not in free]:
            raise UsageError(
                f"--dim {unknown[0]}={self.dims[unknown[0]]} names a size that is not free in the file.",
                f"Free are: {', '.join(free) or 'none'}.",
            )
        plain = {name: (self.batch or BATCH) if name in first else (self.sequence or SEQUENCE) for name in free}
        return plain | dict(self.dims)

    def _require(self, option: str, size: int | None, dims: set[Dim]) -> None:
        """Raise UsageError where a size was asked for that the file fixes otherwise, or an option asks for another."""
        free = {dim for dim in dims if isinstance(dim, str)}
        if size is None:
            return
        if not free and size not in dims:
            raise UsageError(
                f"{option} {size} was asked for, and the file takes {', '.join(map(str, dims)) or 'no such size'}.",
                f"Export it with another {option}, or leave the option away.",
            )
        if free and free <= self.dims.keys() and size not in self.dims.values():
            raise UsageError(
                f"{option} {size} and --dim {next(iter(free))}={self.dims[next(iter(free))]} contradict each other."
            )


@dataclass(frozen=True)
class Feeds:
    """timed: the feed that is timed. checks: those that are compared, the timed one first. batch: samples in it, None
    where the inputs have no first axis in common. sizes: free size -> number. source: in words.
    """

    checks: tuple[Arrays, ...]
    batch: int | None
    sizes: Mapping[str, int]
    source: str

    @property
    def timed(self) -> Arrays:
        return self.checks[0]


def drawn(signature: Signature, sizes: Sizes, scales: Mapping[str, Scale]) -> Feeds:
    """Normal numbers, ids below the vocabulary, no step masked in the feed that is timed; always the same ones."""
    bound = sizes.bind(signature)
    floats = unscaled(signature, scales)
    specs = [Spec(values, mask, tuple(bound.items()), (SEED, turn)) for turn, (values, mask) in enumerate(SPECS)]
    checks = tuple(scaled(build(floats, spec).arrays, scales) for spec in specs)
    return Feeds(checks, _batch(checks[0]), bound, "drawn at random, no step masked")


def given(arrays: Arrays, signature: Signature, sizes: Sizes, scales: Mapping[str, Scale], source: str) -> Feeds:
    """The first samples of the user's arrays, as many as a call takes, and the next ones for the comparison.

    Raises InputError where they do not fit the signature, or hold fewer samples than a call takes, UsageError where
    they have other sizes than were asked for.
    """
    inputs = {tensor.name for tensor in signature.inputs}
    # What `quantize` takes labels from is taken here, too.
    arrays = scaled({name: one for name, one in arrays.items() if name in inputs or not LABELS.match(name)}, scales)
    first = {tensor.shape[0] for tensor in signature.inputs if tensor.shape}
    count = _batch(arrays)
    if len(first) != 1 or count is None:
        return Feeds((arrays,), None, _checked(arrays, signature, sizes, source), source)
    (size,) = first
    step = size if isinstance(size, int) else (sizes.batch or BATCH)
    if count < step:
        raise InputError(
            f"{source} holds {count} samples, and a call takes {step}.", "Give more, or a smaller --batch."
        )
    starts = range(0, min(count - step + 1, FEEDS * step), step)
    checks = tuple({name: array[start : start + step] for name, array in arrays.items()} for start in starts)
    return Feeds(checks, step, _checked(checks[0], signature, sizes, source), source)


def _batch(arrays: Arrays) -> int | None:
    """Samples in a feed: the first axis, where all inputs have the same."""
    sizes = {array.shape[0] if array.ndim else None for array in arrays.values()}
    return sizes.pop() if len(sizes) == 1 else None


def _checked(arrays: Arrays, signature: Signature, sizes: Sizes, source: str) -> dict[str, int]:
    """The free sizes of a feed that fits."""
    check_feeds(signature, arrays, "the artifact")
    seen = {
        dim: size
        for tensor in signature.inputs
        for dim, size in zip(tensor.shape, arrays[tensor.name].shape, strict=True)
        if isinstance(dim, str)
    }
    asked = sizes.bind(signature)
    if other := [name for name, size in seen.items() if size != asked[name] and name in _named(signature, sizes)]:
        raise UsageError(
            f"the size {other[0]!r} was asked to be {asked[other[0]]}, and is {seen[other[0]]} in {source}.",
            "Leave the option away: sizes come from the feeds.",
        )
    return seen


def _named(signature: Signature, sizes: Sizes) -> set[str]:
    """Free sizes that an option other than --batch fixes."""
    batches = {tensor.shape[0] for tensor in signature.inputs if tensor.shape}
    rest = set(signature.free_dims()) - batches
    return set(sizes.dims) | (rest if sizes.sequence is not None else set())


def unscaled(signature: Signature, scales: Mapping[str, Scale]) -> Signature:
    """The signature with float32 where integers stand for other numbers."""
    from dataclasses import replace

    inputs = tuple(replace(one, dtype="float32") if one.name in scales else one for one in signature.inputs)
    return replace(signature, inputs=inputs)


def scaled(arrays: Arrays, scales: Mapping[str, Scale]) -> dict[str, np.ndarray]:
    """Floats as the integers that stand for them."""
    return {
        name: scales[name].integers(array) if name in scales and array.dtype.kind == "f" else array
        for name, array in arrays.items()
    }
