"""Running artifacts on the samples of another one: other batches, other widths of integers, scaled integers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mh_edge.errors import InputError
from mh_edge.matching import paired
from mh_edge.quantization.scheme import Arrays
from mh_edge.runtimes.base import Session
from mh_edge.signature import Signature, Tensor


def fixed_batch(signature: Signature) -> int | None:
    """How many samples a call takes; None where that is free."""
    size = signature.inputs[0].shape[0]
    return size if isinstance(size, int) else None


def rows(feeds: Arrays, count: int) -> dict[str, np.ndarray]:
    """So many samples of the feeds, from the first on; where there are too few, they begin again."""
    taken = np.arange(count)
    return {name: array[taken % len(array)] for name, array in feeds.items()}


def in_calls(run: Callable[[Arrays], Arrays], feeds: Arrays, step: int | None) -> Arrays:
    """run(feeds) in calls of `step` samples, the last one filled up; all at once for None -> the outputs of all."""
    count = len(next(iter(feeds.values())))
    if step is None or step == count:
        return run(feeds)
    calls = [
        run(rows({name: array[start : start + step] for name, array in feeds.items()}, step))
        for start in range(0, count, step)
    ]
    return {name: np.concatenate([one[name] for one in calls])[:count] for name in calls[0]}


@dataclass(frozen=True)
class Counterpart:
    """A quantized artifact that takes and gives what the float model with `signature` does.

    Names are those of the float model (paired by name, else by position); numbers go through the scales of integer
    inputs and outputs; ids are cast to the artifact's width. Raises InputError when the two cannot be paired.
    """

    session: Session
    signature: Signature
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    notes: tuple[str, ...] = field(default=())

    @classmethod
    def of(cls, session: Session, signature: Signature) -> Counterpart:
        path, notes = str(session.path), list[str]()
        inputs = paired(signature.inputs, session.signature.inputs, "input", path, notes)
        outputs = paired(signature.outputs, session.signature.outputs, "output", path, notes)
        for tensor in signature.inputs:
            taken = inputs[tensor.name]
            if np.dtype(taken.dtype).kind != np.dtype(tensor.dtype).kind and taken.name not in session.input_scales:
                raise InputError(
                    f"input {tensor.name!r} is {tensor.dtype} in the float model and {taken.dtype} without a scale in "
                    f"{path}.",
                    "Nobody can say which integer stands for which number.",
                )
        return cls(session, signature, inputs, outputs, tuple(notes))

    def feeds(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The float model's feeds as the artifact takes them."""
        scales = self.session.input_scales
        return {
            taken.name: scales[taken.name].integers(arrays[name])
            if taken.name in scales
            else arrays[name].astype(taken.dtype, copy=False)
            for name, taken in self.inputs.items()
        }

    def run(self, arrays: Arrays) -> dict[str, np.ndarray]:
        """The outputs for any number of samples, as the float model would give them."""
        found = in_calls(self.session.run, self.feeds(arrays), fixed_batch(self.session.signature))
        scales = self.session.output_scales
        return {
            name: scales[given.name].numbers(found[given.name]) if given.name in scales else found[given.name]
            for name, given in self.outputs.items()
        }
