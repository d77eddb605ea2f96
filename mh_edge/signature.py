"""What goes into a model and what comes out: names, dtypes, shapes, and which values the inputs may take.

Plain data without Keras or TensorFlow: converters, runtimes, verification and the manifest all speak of tensors
through it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

Dim = int | str
"""A fixed size, or the name of a free one ("batch", "sequence", "query_sequence")."""


@dataclass(frozen=True)
class Domain:
    """Which values an input may take, so that a generated feed is one the model was made for.

    ids_below: integer ids lie in [0, ids_below) (the vocabulary of an Embedding); None when the input is not ids.
    mask_value: a step is masked where the id, or every feature of the step, equals this number
    (Embedding(mask_zero=True) gives 0, Masking its own mask_value); None when nothing in the model derives a mask from
    this input. bound: no number is larger than this (a state that came out of tanh); None where any may come.
    """

    ids_below: int | None = None
    mask_value: float | None = None
    bound: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {"ids_below": self.ids_below, "mask_value": self.mask_value, "bound": self.bound}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Domain:
        return cls(data["ids_below"], data["mask_value"], data.get("bound"))


@dataclass(frozen=True)
class Tensor:
    """One named input or output. dtype is numpy's name ("float32", "int32", "bool")."""

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    domain: Domain = Domain()

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "shape": list(self.shape)}


@dataclass(frozen=True)
class State:
    """What a call hands on to the next one: the output named `output` is its input named `input`; zeros at first."""

    input: str
    output: str

    def to_json(self) -> dict[str, str]:
        return {"input": self.input, "output": self.output}


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model or artifact, in order. states: those of them that outlive a call."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    states: tuple[State, ...] = ()

    def free_dims(self) -> tuple[str, ...]:
        """Names of the free sizes of the inputs, in order of appearance."""
        names: dict[str, None] = {}
        for tensor in self.inputs:
            names.update((dim, None) for dim in tensor.shape if isinstance(dim, str))
        return tuple(names)

    def pin(self, sizes: Mapping[str, int]) -> Signature:
        """The same signature with the named free dims fixed; names that do not occur are ignored."""

        def pinned(tensors: tuple[Tensor, ...]) -> Iterator[Tensor]:
            for tensor in tensors:
                shape = tuple(sizes.get(dim, dim) if isinstance(dim, str) else dim for dim in tensor.shape)
                yield replace(tensor, shape=shape)

        return replace(self, inputs=tuple(pinned(self.inputs)), outputs=tuple(pinned(self.outputs)))

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [tensor.to_json() | {"domain": tensor.domain.to_json()} for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "states": [state.to_json() for state in self.states],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Signature:
        def tensor(item: Mapping[str, Any]) -> Tensor:
            domain = Domain.from_json(item["domain"]) if "domain" in item else Domain()
            return Tensor(item["name"], item["dtype"], tuple(item["shape"]), domain)

        states = tuple(State(item["input"], item["output"]) for item in data.get("states", ()))
        return cls(tuple(map(tensor, data["inputs"])), tuple(map(tensor, data["outputs"])), states)
