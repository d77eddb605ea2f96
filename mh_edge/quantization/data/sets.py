"""Calibration and evaluation data: real inputs, read batch by batch, so that a set may be larger than memory.

Every sample is checked on its way: it must fit the signature and hold neither NaN nor infinity. float64 becomes
float32, and int64 int32, where the values allow it; nothing else is cast.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from mh_edge.errors import InputError
from mh_edge.quantization.data.sources import LABELS, LABELS_OF, Given, Part, Source, open_source
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes.base import check_feeds
from mh_edge.signature import Signature, Tensor
from mh_edge.verification.feeds import LENGTHS, Spec, build, grid

BATCH = 32
"""Samples of a batch where the model leaves it free."""

RANDOM_SAMPLES = 256

CASTS = {("float64", "float32"), ("int64", "int32")}
"""(given, wanted): what NumPy makes of numbers that were written without a dtype."""

WHOLLY_MASKED = "row"
"""The kind of mask of which no random set is made: no real sample is all padding, and a mean over none is NaN."""


@dataclass(frozen=True)
class Batch:
    """Some samples: feeds that fit the signature, and the labels of the first `count` where the set has them. first:
    index of the first sample in the set. filled: rows at the end that only repeat others, because the model's batch is
    fixed. named: labels that are said to be those of an output, by its name.
    """

    feeds: Arrays
    labels: np.ndarray | None
    first: int
    filled: int = 0
    named: Arrays = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Samples, without those that fill."""
        return len(next(iter(self.feeds.values()))) - self.filled


@dataclass(frozen=True)
class Data:
    """A set that can be read again and again. label: what it is called in messages and in the manifest. samples: how
    many there are, None where only reading tells.
    """

    label: str
    batches: Callable[[], Iterator[Batch]]
    samples: int | None = None


def open_data(given: Given, signature: Signature, *, purpose: str, batch: int = BATCH) -> Data:
    """The set `given` in batches of `batch` samples, or as many as the signature fixes. purpose: "calibration" or
    "evaluation", for the messages.

    Raises InputError when it cannot be read, does not fit the signature or is empty; while it is read also for NaN,
    infinity and numbers that no cast keeps, with the sample.
    """
    size, fixed = _size(signature, batch)
    taken = _taken(signature)
    source = open_source(given, [tensor.name for tensor in signature.inputs])
    named = f"the {purpose} data {source.label!r}"
    samples = None
    if source.parts:
        with _told(named):
            samples = sum(_count(_outline(part, taken), taken) for part in source.parts)
            if samples == 0:
                raise InputError("it holds no sample.", "Give some that are like those of use.")

    def batches() -> Iterator[Batch]:
        first = 0
        for arrays in _cut(_checked(source, taken, named), size):
            batch = _batch(arrays, first, taken, size if fixed else 0)
            yield batch
            first += batch.count

    if not source.parts:
        next(batches())  # what is wrong with a function is said before any work is done
    return Data(source.label, batches, samples)


def random_data(signature: Signature, *, seed: int = 0, samples: int = RANDOM_SAMPLES, batch: int = BATCH) -> Data:
    """Numbers drawn from N(0, 1), ids below the vocabulary, and masks of every kind but whole rows: no data at all,
    which the label says.
    """
    size, _ = _size(signature, batch)
    masks = tuple(dict.fromkeys(spec.mask for spec in grid(signature, seed) if spec.mask != WHOLLY_MASKED))
    first = {tensor.shape[0] for tensor in signature.inputs}

    def batches() -> Iterator[Batch]:
        for number, start in enumerate(range(0, samples, size)):
            count = min(size, samples - start)
            length = LENGTHS[-1 - number // len(masks) % 2]
            rows = size if first.isdisjoint(signature.free_dims()) else count
            sizes = tuple((name, rows if name in first else length) for name in signature.free_dims())
            spec = Spec("normal", masks[number % len(masks)], sizes, (seed, number))
            yield Batch(build(signature, spec).arrays, None, start, rows - count)

    return Data(f"RANDOM NUMBERS (seed {seed}), not real data", batches, samples)


def _size(signature: Signature, batch: int) -> tuple[int, bool]:
    """Samples of a batch, and whether the model fixes them. Raises InputError when an axis common to all inputs is not
    there to be cut.
    """
    first = {tensor.name: tensor.shape[0] if tensor.shape else None for tensor in signature.inputs}
    if not first:
        raise InputError("the model has no input.", "There is nothing to give it samples of.")
    sizes = set(first.values())
    if all(isinstance(size, str) for size in sizes):
        return batch, False
    size = next(iter(sizes))
    outputs = {tensor.shape[0] if tensor.shape else None for tensor in signature.outputs}
    if len(sizes) == 1 and isinstance(size, int) and all(isinstance(out, str) or out == size for out in outputs):
        return size, True
    axes = "; ".join(f"{tensor.name!r} has {tensor.shape}" for tensor in (*signature.inputs, *signature.outputs))
    raise InputError(
        f"the inputs and outputs of the model share no first axis that counts samples: {axes}.",
        "Export it with a batch as the first axis of all.",
    )


def _taken(signature: Signature) -> Signature:
    """The inputs as a set must hold them, with any number of samples, and the outputs."""
    inputs = tuple(replace(tensor, shape=("samples", *tensor.shape[1:])) for tensor in signature.inputs)
    return Signature(inputs, signature.outputs)


def _outline(part: Part, taken: Signature) -> Arrays:
    """The arrays of a part without their numbers: dtypes as they will be, and shapes, in no memory. Raises InputError
    for what no input can be.
    """
    for name, array in part.items():
        if not isinstance(name, str):
            raise InputError(f"{name!r} is no name of an array.", "Name each array after its input.")
        if array.dtype.names is not None:
            raise InputError(f"{name!r} holds records ({array.dtype}).", "Save plain numbers, an array for each input.")
    wanted = {tensor.name: tensor.dtype for tensor in taken.inputs}
    return {
        name: np.broadcast_to(np.zeros((), _cast_to(str(array.dtype), wanted.get(name))), array.shape)
        for name, array in part.items()
    }


def _cast_to(given: str, wanted: str | None) -> str:
    return wanted if wanted is not None and (given, wanted) in CASTS else given


def _count(arrays: Arrays, taken: Signature) -> int:
    """How many samples these are. Raises InputError when they do not fit."""
    labels = _labels(arrays, taken)
    inputs = {name: array for name, array in arrays.items() if name not in labels}
    counts = {name: array.shape[0] if array.ndim else None for name, array in arrays.items()}
    if single := [name for name, count in counts.items() if count is None]:
        raise InputError(f"{single[0]!r} is a single number.", "The first axis of every array counts the samples.")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{count} of {name!r}" for name, count in counts.items())
        raise InputError(f"the numbers of samples differ: {told}.", "The first axis of every array counts the samples.")
    check_feeds(taken, inputs, "the model")
    outputs = [tensor.name for tensor in taken.outputs]
    for name in labels:
        if name != LABELS and name.removeprefix(LABELS_OF) not in outputs:
            raise InputError(f"{name!r} are labels of no output.", f"The model gives: {', '.join(outputs)}.")
    return next(iter(counts.values())) or 0


def _labels(names: Iterable[str], taken: Signature) -> list[str]:
    """Which of the arrays are labels: no input is called so."""
    inputs = {tensor.name for tensor in taken.inputs}
    return [name for name in names if (name == LABELS or name.startswith(LABELS_OF)) and name not in inputs]


def _checked(source: Source, taken: Signature, named: str) -> Iterator[Arrays]:
    """The pieces of a source, cast and checked; at least one."""
    inputs = {tensor.name: tensor for tensor in taken.inputs}
    first, names = 0, set[str]()
    for feeds in source.feeds():
        with _told(named):
            arrays = {name: _cast(name, array, inputs.get(name), first) for name, array in feeds.items()}
            count = _count(arrays, taken)
            if names and names != arrays.keys():
                some = min(names ^ arrays.keys())
                raise InputError(f"some parts have {some!r} and others have none.", "Give all of them labels.")
            names = set(arrays)
            for name, array in arrays.items():
                _require_numbers(name, array, first)
        if count:
            yield arrays
        first += count
    if first == 0:
        raise InputError(f"{named} holds no sample.", "Give some that are like those of use.")


def _cast(name: str, array: np.ndarray, tensor: Tensor | None, first: int) -> np.ndarray:
    wanted = _cast_to(str(array.dtype), tensor.dtype if tensor else None)
    if wanted == str(array.dtype):
        return array
    with np.errstate(over="ignore"):  # infinity is found below, with its place
        cast = array.astype(wanted)
    lost = cast != array if np.issubdtype(cast.dtype, np.integer) else np.isinf(cast) & np.isfinite(array)
    if lost.any():
        at = _place(lost, first)
        raise InputError(f"{name!r} holds {array[lost][0]} {at}, which {wanted} cannot hold.", "Correct that sample.")
    return cast


def _require_numbers(name: str, array: np.ndarray, first: int) -> None:
    if array.dtype.hasobject:
        raise InputError(f"{name!r} holds Python objects.", "Save plain numbers.")
    if np.issubdtype(array.dtype, np.inexact) and not (good := np.isfinite(array)).all():
        what = "NaN" if np.isnan(array[~good][0]) else "infinity"
        raise InputError(f"{name!r} holds {what} {_place(~good, first)}.", "Correct or leave out that sample.")


def _place(bad: np.ndarray, first: int) -> str:
    sample, *position = (int(axis) for axis in np.unravel_index(int(bad.argmax()), bad.shape))
    return f"in sample {first + sample}" + (f" at {tuple(position)}" if position else "")


def _cut(pieces: Iterable[Arrays], size: int) -> Iterator[Arrays]:
    """Pieces of any number of samples -> pieces of `size`, fewer only at the end, and where the samples after them have
    another shape (another free length).
    """
    left: Arrays = {}
    for piece in pieces:
        arrays = piece
        if left and any(piece[name].shape[1:] != array.shape[1:] for name, array in left.items()):
            yield left
        elif left:
            arrays = {name: np.concatenate([array, piece[name]]) for name, array in left.items()}
        rows = len(next(iter(arrays.values())))
        cuts = [(start, min(start + size, rows)) for start in range(0, rows, size)]
        *whole, left = ({name: array[start:stop] for name, array in arrays.items()} for start, stop in cuts)
        yield from whole
    yield left


def _batch(arrays: Arrays, first: int, taken: Signature, fixed: int) -> Batch:
    """fixed: how many rows it must have, filled up with its own; 0 for any number."""
    count = len(next(iter(arrays.values())))
    rows = np.arange(max(fixed, count)) % count
    feeds = {tensor.name: arrays[tensor.name] for tensor in taken.inputs}
    if len(rows) > count:
        feeds = {name: array[rows] for name, array in feeds.items()}
    labels = {name: arrays[name] for name in _labels(arrays, taken)}
    named = {name.removeprefix(LABELS_OF): array for name, array in labels.items() if name != LABELS}
    return Batch(feeds, labels.get(LABELS), first, len(rows) - count, named)


@contextlib.contextmanager
def _told(named: str) -> Iterator[None]:
    """An InputError begins with the set that it is about."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{named}: {error.message}", error.hint) from error
