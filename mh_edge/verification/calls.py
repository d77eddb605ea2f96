"""Proof over several calls: what a stream hands from call to call is handed on by the artifact as by Keras."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from mh_edge.signature import Signature
from mh_edge.verification.report import Candidate, Tolerance
from mh_edge.verification.trial import Trial

CALLS = 4
"""Calls of one run that is verified: enough for a state to be handed on, and handed on again, from where it changed."""


class CallsTrial(Trial):
    """A trial whose feeds have the call as first axis; the states alone, which are those before the first call, do
    not.
    """

    def run(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        states = self._signature.states
        carried = {state.input: arrays[state.input] for state in states}
        shown = []
        for number in range(CALLS):
            own = {name: array[number] for name, array in arrays.items() if name not in carried}
            outputs = super().run(own | carried)
            carried = {state.input: outputs[state.output] for state in states}
            shown.append(outputs)
        last = {state.output for state in states}
        return {
            name: value if name in last else np.stack([one[name] for one in shown]) for name, value in outputs.items()
        }


def started(signature: Signature, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds of a stream with the states that they do not name: zeros, as before the first call."""
    rows = next(iter(feeds.values())).shape[0] if feeds else 1
    carried = {state.input for state in signature.states}
    zeros = {
        tensor.name: np.zeros([rows, *(dim for dim in tensor.shape[1:] if isinstance(dim, int))], tensor.dtype)
        for tensor in signature.inputs
        if tensor.name in carried
    }
    return zeros | dict(feeds)


def repeated(signature: Signature, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The feeds of one call as those of several."""
    carried = {state.input for state in signature.states}
    return {name: array if name in carried else np.stack([array] * CALLS) for name, array in feeds.items()}


def both(one: Candidate, several: Candidate) -> Candidate:
    """The verdict on single calls and on several in a row."""
    over = f" over {CALLS} calls"
    return replace(
        one,
        passed=one.passed and several.passed,
        feeds=one.feeds + several.feeds,
        skipped=one.skipped + several.skipped,
        inconclusive=one.inconclusive + several.inconclusive,
        flips=one.flips + several.flips,
        required_tolerance=_wider(one.required_tolerance, several.required_tolerance),
        worst=one.worst if several.passed else several.worst,
        classes=(*one.classes, *(replace(row, kind=row.kind + over) for row in several.classes)),
        scale=max(one.scale or 0.0, several.scale or 0.0),
        reasons=(*one.reasons, *(f"{reason.removesuffix('.')}{over}." for reason in several.reasons)),
    )


def _wider(one: Tolerance | None, other: Tolerance | None) -> Tolerance | None:
    if one is None or other is None:
        return one or other
    return Tolerance(max(one.abs, other.abs), max(one.rel, other.rel))
