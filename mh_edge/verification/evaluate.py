"""Running the Keras model on a feed, as `predict` would: in a graph, in the precision of the model, or compiled by
XLA.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from mh_edge.policy import computing
from mh_edge.program import Program
from mh_edge.runtimes.base import first_line
from mh_edge.verification.feeds import batch_name
from mh_edge.verification.reference import Refused

REFUSALS = (ValueError, TypeError, IndexError, NotImplementedError, tf.errors.OpError)
"""What Keras and TensorFlow raise for a feed that the model is not made for."""


WRAPPER = re.compile(r"Exception encountered when calling.*|\x1b\[[0-9;]*m")
"""What Keras puts around the message of a layer: a heading, and bold type for a terminal."""


def reason(error: Exception) -> str:
    """The first line that a layer itself said."""
    return first_line(WRAPPER.sub("", str(error)) or type(error).__name__)


class Evaluator:
    """run(feeds) -> outputs by name, NumPy. dtype: what floats are computed in; the program's model must have that
    policy.

    The graph is traced once for every set of lengths, with the batch free (a fixed one stays fixed); where the model
    cannot be traced it runs eagerly.
    """

    def __init__(self, program: Program, dtype: str = "float32", *, xla: bool = False) -> None:
        self.program = program
        self.dtype = dtype
        self._xla = xla
        self._batch = None if xla else batch_name(program.signature)
        self._traced: dict[tuple[tuple[int | None, ...], ...], Any] = {}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Raises Refused with Keras's reason."""
        arrays = [self._cast(feeds[tensor.name]) for tensor in self.program.signature.inputs]
        try:
            with computing(self.dtype):
                outputs = self._function(arrays)(*map(tf.constant, arrays))
        except REFUSALS as error:
            raise Refused(reason(error)) from error
        names = [tensor.name for tensor in self.program.signature.outputs]
        return {name: value.numpy() for name, value in zip(names, outputs, strict=True)}

    def _cast(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self.dtype) if np.issubdtype(array.dtype, np.floating) else array

    def traces(self, feeds: Mapping[str, np.ndarray]) -> int:
        """How many sets of shapes will have been traced after this feed."""
        return len({*self._traced, self._key([feeds[tensor.name] for tensor in self.program.signature.inputs])})

    def _key(self, arrays: list[np.ndarray]) -> tuple[tuple[int | None, ...], ...]:
        return tuple((None, *array.shape[1:]) if self._batch is not None else array.shape for array in arrays)

    def _function(self, arrays: list[np.ndarray]) -> Any:
        key = self._key(arrays)
        if key not in self._traced:
            specs = [tf.TensorSpec(shape, array.dtype) for shape, array in zip(key, arrays, strict=True)]
            function = tf.function(lambda *flat: self.program.call(flat), autograph=False, jit_compile=self._xla)
            try:
                self._traced[key] = function.get_concrete_function(*specs)
            except REFUSALS:
                if self._xla:
                    raise
                return lambda *flat: self.program.call(flat)
        return self._traced[key]
