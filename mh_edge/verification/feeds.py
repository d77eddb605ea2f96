"""The feeds a model is compared on: a grid over what its signature leaves free, and the arrays of the user.

A feed is described by a `Spec` (values x mask x sizes x seed), from which its arrays are made when they are needed,
always the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from mh_edge.errors import InputError
from mh_edge.runtimes.base import check_feeds
from mh_edge.signature import Domain, Signature, Tensor

BATCHES = (1, 2, 5)
LENGTHS = (1, 7, 33)  # one step, odd, longer than any window or register tile
SPARE_LENGTHS = (67, 16, 3, 128)  # for models with a least or a greatest length
SPARE_FEEDS = 40  # how many more are tried before giving up
LEAST_FEEDS = 8

MASKS = ("none", "right", "left", "holes", "row")
LARGE = 30.0  # far into the flat part of every saturating activation, far from overflow
HOLES = 0.4  # share of masked steps
UNKNOWN_IDS = 2  # an integer input of unknown meaning gets 0 and 1

USER = "feeds"  # the class of the user's own feeds
USER_ROWS = 32  # rows of the user's arrays that are run at once where the batch is free

FIXED_SEEDS = 5  # least number of feeds of normal values, where few sizes are free


@dataclass(frozen=True)
class Spec:
    """What a generated feed is like. sizes: every free size by name. mask: how steps are masked, "none" without mask
    sources.
    """

    values: str
    mask: str
    sizes: tuple[tuple[str, int], ...]
    seed: tuple[int, int]

    @property
    def kind(self) -> str:
        """The class of feeds whose noise is pooled: same values, same kind of mask."""
        return self.values if self.mask == "none" else f"{self.values}, mask {self.mask}"

    @property
    def name(self) -> str:
        sizes = "".join(f", {name} {size}" for name, size in self.sizes)
        return f"{self.kind}{sizes} (seed {self.seed[0]}.{self.seed[1]})"


@dataclass(frozen=True)
class Feed:
    """Arrays by input name, ready to run. spec: None for the user's own."""

    name: str
    kind: str
    arrays: Mapping[str, np.ndarray]
    spec: Spec | None = None

    def light(self) -> Feed:
        """The feed without arrays that `build` can make again."""
        return self if self.spec is None else replace(self, arrays={})


def batch_name(signature: Signature) -> str | None:
    """The name of the free size that every input and output has as its first, None when there is none."""
    first = {tensor.shape[0] if tensor.shape else None for tensor in signature.inputs + signature.outputs}
    name = first.pop() if len(first) == 1 else None
    return name if isinstance(name, str) else None


def grid(signature: Signature, seed: int) -> list[Spec]:
    """Every kind of values and mask, each with several sizes, so that each kind meets every batch and every length."""
    table = _sizes(signature)
    rows, columns = len(table), len(table[0])
    masks = MASKS if any(map(_takes_mask, signature.inputs)) else MASKS[:1]
    normal = 3 if len(masks) > 1 else max(rows * columns, FIXED_SEEDS)
    plan = [("normal", mask, normal) for mask in masks]
    plan += [("large", mask, 2 if len(masks) > 1 else 3) for mask in masks[:2]]
    plan += [("zero", mask, 1) for mask in masks[:: len(MASKS) - 1]]
    specs: list[Spec] = []
    for turn, (values, mask, feeds) in enumerate(plan):
        for index in range(feeds):
            # Three feeds visit every row and every column once; the turn shifts which row meets which column.
            size = table[index % rows][(index + index // rows + turn) % columns]
            specs.append(Spec(values, mask, size, (seed, len(specs))))
    return specs


def spares(signature: Signature, seed: int) -> Iterator[Spec]:
    """Further feeds of normal values, for a model that refuses those of the grid."""
    for number in range(SPARE_FEEDS):
        length = SPARE_LENGTHS[number % len(SPARE_LENGTHS)]
        batch = BATCHES[number % len(BATCHES)]
        yield Spec("normal", "none", _bind(signature, batch, (length,), 0), (seed, 1000 + number))


def _sizes(signature: Signature) -> list[list[tuple[tuple[str, int], ...]]]:
    """A row for every batch, a column for every length; several lengths are equal in one row, else different."""
    batches = BATCHES if batch_name(signature) is not None else BATCHES[:1]
    lengths = range(len(LENGTHS) if len(signature.free_dims()) > (batch_name(signature) is not None) else 1)
    return [
        [_bind(signature, batch, LENGTHS[turn:] + LENGTHS[:turn], row % 2) for turn in lengths]
        for row, batch in enumerate(batches)
    ]


def _bind(signature: Signature, batch: int, lengths: tuple[int, ...], stride: int) -> tuple[tuple[str, int], ...]:
    first = batch_name(signature)
    names = [name for name in signature.free_dims() if name != first]
    bound = {name: lengths[index * stride % len(lengths)] for index, name in enumerate(names)}
    return tuple((name, batch if name == first else bound[name]) for name in signature.free_dims())


def build(signature: Signature, spec: Spec) -> Feed:
    """The arrays of a spec: the same spec always gives the same numbers."""
    rng = np.random.default_rng(spec.seed)
    sizes = dict(spec.sizes)
    arrays = {}
    for tensor in signature.inputs:
        shape = tuple(dim if isinstance(dim, int) else sizes[dim] for dim in tensor.shape)
        arrays[tensor.name] = _array(tensor, shape, spec, rng)
    return Feed(spec.name, spec.kind, arrays, spec)


def is_explicit_mask(tensor: Tensor) -> bool:
    """Whether the input is a mask by itself: boolean, or called one."""
    return tensor.dtype == "bool" or ("mask" in tensor.name.lower() and tensor.domain == Domain())


def _takes_mask(tensor: Tensor) -> bool:
    return is_explicit_mask(tensor) or tensor.domain.mask_value is not None


def _array(tensor: Tensor, shape: tuple[int, ...], spec: Spec, rng: np.random.Generator) -> np.ndarray:
    if is_explicit_mask(tensor):
        return pattern(spec.mask, shape, rng).astype(tensor.dtype)
    domain = tensor.domain
    integer = domain.ids_below is not None or not np.issubdtype(np.dtype(tensor.dtype), np.floating)
    array = _ids(domain, shape, spec.values, rng) if integer else _floats(shape, spec.values, rng)
    if domain.bound is not None:
        array = np.clip(array, -domain.bound, domain.bound)
    if domain.mask_value is not None:
        steps = shape if domain.ids_below is not None else shape[:-1]
        array[~pattern(spec.mask, steps, rng)] = domain.mask_value
    return array.astype(tensor.dtype)


def _floats(shape: tuple[int, ...], values: str, rng: np.random.Generator) -> np.ndarray:
    array = rng.standard_normal(shape)
    return array * {"normal": 1.0, "large": LARGE, "zero": 0.0}[values]


def _ids(domain: Domain, shape: tuple[int, ...], values: str, rng: np.random.Generator) -> np.ndarray:
    """Ids other than the one that masks; "large" are the last of the vocabulary, "zero" all the first."""
    below = UNKNOWN_IDS if domain.ids_below is None else domain.ids_below
    allowed = np.setdiff1d(
        np.arange(max(below, 1)), [] if domain.mask_value is None or below < 2 else [domain.mask_value]
    )
    if values == "zero":
        allowed = allowed[:1]
    elif values == "large":
        allowed = allowed[-UNKNOWN_IDS:]
    return rng.choice(allowed, shape)


def pattern(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """A mask (true is valid) along the last axis; "row" masks the first item of the batch wholly and pads the
    others.
    """
    rows, time = (int(np.prod(shape[:-1])), shape[-1]) if len(shape) > 1 else (shape[0], 1)
    steps = np.arange(time)
    lengths = rng.integers(1, time + 1, (rows, 1))
    lengths[0] = max(1, time // 2)
    valid = {
        "none": np.ones((rows, time), bool),
        "right": steps < lengths,
        "left": steps >= time - lengths,
        "holes": rng.random((rows, time)) > HOLES,
        "row": steps < lengths,
    }[kind]
    if kind == "holes":
        valid[np.arange(rows), rng.integers(0, time, rows)] = True
    valid = valid.reshape(shape)
    if kind == "row":
        valid[0] = False
    return valid


def user_feeds(signature: Signature, arrays: Mapping[str, np.ndarray]) -> Iterator[Feed]:
    """The user's arrays in pieces of at most 32 rows, or of exactly the fixed batch (the last one filled up with its
    first rows).

    Raises InputError for a name, dtype or shape that does not fit the signature, object arrays, and NaN (with its
    index).
    """
    for name, array in arrays.items():
        _check_numbers(name, array)
    batch = batch_name(signature)
    fixed = {tensor.shape[0] if tensor.shape else None for tensor in signature.inputs}
    step = USER_ROWS if batch is not None else fixed.pop()
    if (fixed and batch is None) or not isinstance(step, int):
        # Inputs without a common batch: the arrays are one feed, as they are.
        check_feeds(signature, arrays, "the model")
        yield Feed(USER, USER, arrays)
        return
    check_feeds(Signature(tuple(map(_with_batch, signature.inputs)), ()), arrays, "the model")
    rows = next(iter(arrays.values())).shape[0]
    for start in range(0, rows, step):
        stop = min(start + step, rows)
        whole = stop - start == step or batch is not None
        taken = slice(start, stop) if whole else np.arange(start, start + step) % rows
        yield Feed(f"{USER} [{start}:{stop}]", USER, {name: array[taken] for name, array in arrays.items()})


def _with_batch(tensor: Tensor) -> Tensor:
    return Tensor(tensor.name, tensor.dtype, ("batch", *tensor.shape[1:]), tensor.domain)


def _check_numbers(name: str, array: np.ndarray) -> None:
    if array.dtype.hasobject:
        raise InputError(f"the array {name!r} of the feeds holds Python objects.", "Save plain numbers.")
    if array.size == 0:
        raise InputError(f"the array {name!r} of the feeds is empty: its shape is {array.shape}.")
    if np.issubdtype(array.dtype, np.floating) and np.isnan(array).any():
        index = tuple(int(axis) for axis in np.argwhere(np.isnan(array))[0])
        raise InputError(
            f"the array {name!r} of the feeds holds NaN at {index}.", "Give numbers a model can be judged on."
        )


def nudged(signature: Signature, arrays: Mapping[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """The same feed with every float one unit in the last place away, up or down at random; ids, masks and masked steps
    stay.
    """
    rng = np.random.default_rng(seed)

    def nudge(tensor: Tensor) -> np.ndarray:
        array = arrays[tensor.name]
        if (
            not np.issubdtype(array.dtype, np.floating)
            or is_explicit_mask(tensor)
            or tensor.domain.ids_below is not None
        ):
            return array
        towards = np.where(rng.random(array.shape) < 0.5, -np.inf, np.inf).astype(array.dtype)
        kept = (array == 0) | (array == tensor.domain.mask_value)
        return np.where(kept, array, np.nextafter(array, towards))

    return {tensor.name: nudge(tensor) for tensor in signature.inputs}
