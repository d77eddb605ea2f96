"""Which input and output of a candidate is which of the reference, and which free sizes the candidate fixes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mh_edge.errors import InputError
from mh_edge.signature import Dim, Signature, Tensor


@dataclass(frozen=True)
class Match:
    """inputs, outputs: name in the reference -> tensor of the candidate. pinned: sizes that the candidate fixes."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    pinned: tuple[tuple[str, int], ...]
    notes: tuple[str, ...]

    def feeds(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The reference's arrays under the candidate's names and integer widths."""
        return {
            self.inputs[name].name: array.astype(self.inputs[name].dtype, copy=False) for name, array in arrays.items()
        }

    def results(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The candidate's outputs under the reference's names."""
        return {name: outputs[tensor.name] for name, tensor in self.outputs.items()}


def match(reference: Signature, candidate: Signature, path: str) -> Match:
    """Pair by name; where names differ altogether, by position.

    Raises InputError when counts, ranks, dtypes or fixed sizes cannot be brought together.
    """
    notes: list[str] = []
    inputs = paired(reference.inputs, candidate.inputs, "input", path, notes)
    outputs = paired(reference.outputs, candidate.outputs, "output", path, notes)
    pinned: dict[str, int] = {}
    for tensor in reference.inputs:
        _check(tensor, inputs[tensor.name], "input", path)
        for dim, size in zip(tensor.shape, inputs[tensor.name].shape, strict=True):
            if isinstance(dim, str) and isinstance(size, int) and pinned.setdefault(dim, size) != size:
                raise InputError(
                    f"{path} fixes {dim!r} to {pinned[dim]} and to {size}, which the reference needs equal."
                )
    for tensor in reference.outputs:
        _check(tensor, outputs[tensor.name], "output", path)
    return Match(inputs, outputs, tuple(sorted(pinned.items())), tuple(notes))


def paired(
    reference: Sequence[Tensor], candidate: Sequence[Tensor], what: str, path: str, notes: list[str]
) -> dict[str, Tensor]:
    """Name in the reference -> tensor of the candidate. what: "input" or "output". notes: where to say that it went by
    position. Raises InputError when they are not as many.
    """
    ours, theirs = [tensor.name for tensor in reference], [tensor.name for tensor in candidate]
    if len(ours) != len(theirs):
        raise InputError(
            f"the reference has the {what}s {', '.join(ours)}; {path} has {', '.join(theirs)}, not as many."
        )
    if set(ours) == set(theirs):
        by_name = {tensor.name: tensor for tensor in candidate}
        return {name: by_name[name] for name in ours}
    if len(ours) > 1:
        notes.append(
            f"{what}s matched by position: " + ", ".join(f"{a} = {b}" for a, b in zip(ours, theirs, strict=True))
        )
    return dict(zip(ours, candidate, strict=True))


def _check(ours: Tensor, theirs: Tensor, what: str, path: str) -> None:
    both = f"{what} {ours.name!r} is {_form(ours)} in the reference and {_form(theirs)} in {path}"
    integers = all(np.issubdtype(np.dtype(tensor.dtype), np.integer) for tensor in (ours, theirs))
    # Converters widen or narrow ids; any other change of dtype is another interface.
    if ours.dtype != theirs.dtype and not (integers and what == "input"):
        raise InputError(f"{both}.", "Only artifacts with the dtypes of the reference can be compared with it.")
    # A file may say nothing of the shape of an output; what really comes out is compared in any case.
    unsaid = what == "output" and not theirs.shape
    if not unsaid and (len(ours.shape) != len(theirs.shape) or any(map(_differ, ours.shape, theirs.shape))):
        raise InputError(f"{both}: these shapes do not fit each other.")


def _differ(a: Dim, b: Dim) -> bool:
    return isinstance(a, int) and isinstance(b, int) and a != b


def _form(tensor: Tensor) -> str:
    return f"{tensor.dtype} ({', '.join(map(str, tensor.shape))})"
