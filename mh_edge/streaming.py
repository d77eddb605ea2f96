"""A Keras model as one step of a stream: (inputs, states) -> (outputs, states after them).

Every recurrent layer starts from states that are further inputs of the model and gives its final states as further
outputs, so that a device keeps them between calls: feed `<layer>_state_h_out` of one call as `<layer>_state_h` of the
next, zeros at first. It is what Keras computes with stateful=True, call by call, with the memory outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from mh_edge.errors import InputError
from mh_edge.program import Program, program
from mh_edge.recurrence import cells
from mh_edge.signature import Domain, Signature, State, Tensor
from mh_edge.verification.calls import CALLS

SAME = (1e-3, 1e-4)
"""rtol and atol under which pieces add up to the whole: far above what float32 explains, far below another state."""

BOUNDED = (
    keras.activations.tanh,
    keras.activations.sigmoid,
    keras.activations.hard_sigmoid,
    keras.activations.softsign,
)
"""Activations of at most 1, and so states h of at most 1."""

CONVOLUTIONAL = (keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D)

KINDS: Mapping[type, tuple[str, ...]] = {keras.layers.LSTMCell: ("h", "c")}
"""What the states of a cell are called where they are not h alone; those of a custom cell are numbered."""


@dataclass(frozen=True)
class Stream(Program):
    """A program whose last inputs and outputs are states (signature.states).

    places: where its streamed layers are among the layers of the model, so that a clone of the model has the same ones.
    """

    places: tuple[int, ...]

    @property
    def layers(self) -> list[keras.Layer]:
        """Without those that hold a streamed layer: as one operation they would swallow its states."""
        streamed = self.streamed
        return [
            layer
            for layer in super().layers
            if layer in streamed or not any(inner in streamed for inner in layer._flatten_layers())
        ]

    @property
    def streamed(self) -> list[keras.layers.RNN]:
        """The layers whose states these are, in the order of their states."""
        every = super().layers
        return [every[place] for place in self.places]

    def call(self, flat: Sequence[Any]) -> list[Any]:
        own = len(self.signature.inputs) - len(self.signature.states)
        given, after = iter(flat[own:]), dict[Any, list[Any]]()
        with ExitStack() as stack:
            for layer in self.streamed:
                stack.enter_context(_carried(layer, [next(given) for _ in _state_names(layer)], after))
            outputs = super().call(flat[:own])
        return [*outputs, *(state for layer in self.streamed for state in after[layer])]


@dataclass(frozen=True)
class Calls(Stream):
    """Several calls of a stream as one: its own inputs and outputs have the call as first axis, states are those before
    the first and after the last.
    """

    def call(self, flat: Sequence[Any]) -> list[Any]:
        carried = len(self.signature.states)
        own, states = flat[: len(flat) - carried], list(flat[len(flat) - carried :])
        shown = []
        for number in range(CALLS):
            outputs = super().call([*(array[number] for array in own), *states])
            states = outputs[len(outputs) - carried :]
            shown.append(outputs[: len(outputs) - carried])
        return [*(keras.ops.stack(values) for values in zip(*shown, strict=True)), *states]


def stream(model: keras.Model, feeds: Mapping[str, np.ndarray] | None = None) -> Stream:
    """The Stream of a Keras model, functional, Sequential, nested or subclassed; stateful=True or not.

    Raises InputError where a stream makes no sense: no recurrent layer, one that reads time from the end
    (Bidirectional, go_backwards), that starts from a state of the model's own, or is called twice.
    """
    found = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.RNN)]
    _refuse(model, found)
    with ExitStack() as stack:
        for layer in found:
            stack.enter_context(_with(layer, stateful=False))
        base = program(model, feeds)
        called = _called(base, found)
    every = base.layers
    names = _free_names(base.signature, called)
    batch = base.signature.inputs[0].shape[0]
    forms = [form for layer in called for form in _state_forms(layer)]
    states = [Tensor(name, "float32", (batch, size), domain) for name, (size, domain) in zip(names, forms, strict=True)]
    signature = Signature(
        (*base.signature.inputs, *states),
        (*base.signature.outputs, *(replace(state, name=f"{state.name}_out") for state in states)),
        tuple(State(name, f"{name}_out") for name in names),
    )
    return Stream(base.model, signature, base.structure, tuple(every.index(layer) for layer in called))


def over_calls(stream: Stream) -> Calls:
    """The stream as `Calls`."""
    signature = stream.signature
    carried = {name for state in signature.states for name in (state.input, state.output)}

    def listed(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(
            tensor if tensor.name in carried else replace(tensor, shape=(CALLS, *tensor.shape)) for tensor in tensors
        )

    several = replace(signature, inputs=listed(signature.inputs), outputs=listed(signature.outputs))
    return Calls(stream.model, several, stream.structure, stream.places)


def stream_notes(stream: Stream) -> tuple[str, ...]:
    """What a user should know of a stream."""
    whole = _adds_up(stream)
    if whole is None:
        return ()
    if whole:
        return ("a sequence fed to it in pieces gives what the model gives on the whole of it",)
    return ("what it gives depends on where a sequence is cut into pieces, as in Keras with stateful=True",)


def _adds_up(stream: Stream) -> bool | None:
    """Whether a sequence fed in pieces gives what the model gives on the whole of it; None where that cannot be tried:
    its length is fixed, or there are several.
    """
    from mh_edge.verification.evaluate import Evaluator
    from mh_edge.verification.feeds import build, grid, spares
    from mh_edge.verification.reference import Refused

    carried = {name for state in stream.signature.states for name in (state.input, state.output)}
    own = [tensor for tensor in stream.signature.inputs if tensor.name not in carried]
    lengths = {dim for tensor in own for dim in tensor.shape[1:] if isinstance(dim, str)}
    if len(lengths) != 1 or not all(lengths & {*tensor.shape} for tensor in own):
        return None
    (length,) = lengths
    several = over_calls(stream)

    def joined(tensor: Tensor, array: np.ndarray) -> np.ndarray:
        if tensor.name in carried:
            return array
        return np.concatenate(array, tensor.shape.index(length)) if length in tensor.shape else array[-1]

    # The spares are for a model that refuses the whole grid; they have no masks of their own.
    batches = [grid(several.signature, 0), *([one, replace(one, mask="left")] for one in spares(several.signature, 0))]
    summed, at_once = Evaluator(several), Evaluator(stream)
    for specs in batches:
        judged = False
        for spec in specs:
            if spec.values == "large":  # rounding grows with the values, and where a sequence is cut does not
                continue
            # Backwards, so that of the masks "row", which masks all of the first call, masks all of the last.
            feed = {
                name: array if name in carried else array[::-1]
                for name, array in build(several.signature, spec).arrays.items()
            }
            try:
                pieces = summed.run(feed)
                whole = at_once.run(
                    {tensor.name: joined(tensor, feed[tensor.name]) for tensor in stream.signature.inputs}
                )
            except Refused:
                continue
            judged = True
            if not all(
                np.allclose(joined(tensor, pieces[tensor.name]), whole[tensor.name], *SAME, equal_nan=True)
                for tensor in stream.signature.outputs
            ):
                return False
        if judged:
            return True
    return None


def _refuse(model: keras.Model, found: Sequence[keras.layers.RNN]) -> None:
    what = f"the states of model {model.name!r} cannot be inputs and outputs"
    if not found:
        raise InputError(f"{what}: it has no recurrent layer.", "Export it without --state-io.")
    for layer in model._flatten_layers():
        name = f"layer {layer.name!r} ({type(layer).__name__})"
        if isinstance(layer, keras.layers.Bidirectional) or (layer in found and layer.go_backwards):
            raise InputError(
                f"{what}: {name} reads time from the end, which a stream has not reached yet.",
                "Only layers that read forwards can stream; export it without --state-io, on whole sequences.",
            )
        inner = [part for part in found if part in layer._flatten_layers(include_self=False)]
        if isinstance(layer, keras.layers.TimeDistributed) and inner:
            raise InputError(
                f"{what}: {name} runs {inner[0].name!r} anew at every step, so it has nothing to hand on.",
                "Export it without --state-io.",
            )
        if isinstance(layer, CONVOLUTIONAL):
            raise InputError(f"{what}: {name} has states of the size of an image.", "Export it without --state-io.")


def _called(base: Program, found: Sequence[keras.layers.RNN]) -> list[keras.layers.RNN]:
    """The recurrent layers that the model calls, in order. Raises InputError for one whose state is not its own."""
    from mh_edge.verification.evaluate import REFUSALS
    from mh_edge.verification.feeds import build, grid, spares

    calls: list[tuple[keras.layers.RNN, bool]] = []
    for spec in (*grid(base.signature, 0), *spares(base.signature, 0)):
        calls.clear()
        with ExitStack() as stack:
            for layer in found:
                stack.enter_context(_watched(layer, calls))
            try:
                base.run(build(base.signature, spec).arrays)
            except REFUSALS:
                continue
        break
    layers = [layer for layer, _ in calls]
    for layer, started in calls:
        if started:
            raise InputError(
                f"layer {layer.name!r} starts from a state that the model itself computes or takes as an input.",
                "Its state cannot be kept between calls as well; export the model without --state-io.",
            )
        if (times := layers.count(layer)) > 1:
            raise InputError(
                f"layer {layer.name!r} is called {times} times in one run of the model, so it has no one state.",
                "Use a layer of its own at each place.",
            )
    return layers


def _free_names(own: Signature, called: Sequence[keras.layers.RNN]) -> list[str]:
    """The names of all states. Raises InputError for one that an input, an output or another layer has already."""
    taken = {tensor.name: f"the output {tensor.name!r} of the model" for tensor in own.outputs}
    taken |= {tensor.name: f"the input {tensor.name!r} of the model" for tensor in own.inputs}
    names = []
    for layer in called:
        for kind in _state_names(layer):
            names.append(f"{layer.name}_{kind}")
            for name in (names[-1], f"{names[-1]}_out"):
                if name in taken:
                    raise InputError(
                        f"a state of layer {layer.name!r} would be called {name!r}, and so is {taken[name]}.",
                        "Give each layer, input and output a name of its own.",
                    )
                taken[name] = f"one of another layer, {layer.name!r}"
    return names


def _state_forms(layer: keras.layers.RNN) -> list[tuple[int, Domain]]:
    """Units of each state, and which values it takes."""
    forms = []
    for cell in cells(layer):
        known = isinstance(cell, keras.layers.LSTMCell | keras.layers.GRUCell | keras.layers.SimpleRNNCell)
        bound = 1.0 if known and cell.activation in BOUNDED else None
        sizes = keras.tree.flatten(cell.state_size)
        forms += [(int(size), Domain(bound=bound if index == 0 else None)) for index, size in enumerate(sizes)]
    return forms


def _state_names(layer: keras.layers.RNN) -> list[str]:
    """One name per state: "state_h", "state_c"; in a stack of cells after the number of the cell."""
    stacked = isinstance(layer.cell, keras.layers.StackedRNNCells)
    names = []
    for number, cell in enumerate(cells(layer)):
        count = len(keras.tree.flatten(cell.state_size))
        kinds = KINDS.get(type(cell)) or (("h",) if count == 1 else tuple(map(str, range(count))))
        names += [f"{number}_state_{kind}" if stacked else f"state_{kind}" for kind in kinds]
    return names


@contextmanager
def _carried(layer: keras.layers.RNN, states: Sequence[Any], after: dict[Any, list[Any]]) -> Iterator[None]:
    """While it lasts, the layer starts from `states`; its final ones are put into `after`."""

    def streamed(body: Callable[..., Any]) -> Callable[..., Any]:
        def call(sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False) -> Any:
            del initial_state
            given = keras.tree.pack_sequence_as(layer.get_initial_state(batch_size=1), list(states))
            with _with(layer, return_state=True, stateful=False):
                output, *final = body(sequences, initial_state=given, mask=mask, training=training)
            after[layer] = keras.tree.flatten(final)
            return (output, *final) if layer.return_state else output

        return call

    with _patched(layer, streamed):
        yield


@contextmanager
def _watched(layer: keras.layers.RNN, calls: list[tuple[keras.layers.RNN, bool]]) -> Iterator[None]:
    """While it lasts, each call of the layer is noted, and whether it was given a state."""

    def noted(body: Callable[..., Any]) -> Callable[..., Any]:
        def call(sequences: Any, initial_state: Any = None, **rest: Any) -> Any:
            calls.append((layer, initial_state is not None))
            return body(sequences, initial_state=initial_state, **rest)

        return call

    with _patched(layer, noted):
        yield


@contextmanager
def _patched(layer: keras.Layer, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """While it lasts, wrap(layer.call) is the layer's call; what may have replaced it already is called by it."""
    before = vars(layer).get("call")
    # Past Keras's attribute tracking, which would record the function as part of the layer.
    vars(layer)["call"] = wrap(layer.call)
    try:
        yield
    finally:
        if before is None:
            del vars(layer)["call"]
        else:
            vars(layer)["call"] = before


@contextmanager
def _with(layer: keras.layers.RNN, **options: bool) -> Iterator[None]:
    """While it lasts, the layer has these options."""
    before = {name: vars(layer)[name] for name in options}
    vars(layer).update(options)
    try:
        yield
    finally:
        vars(layer).update(before)
