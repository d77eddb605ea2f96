"""What all devices of the TFLite interpreter share: the interpreter itself, free sizes, and which operations its
delegate took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from mh_edge.runtimes.lite.file import LiteFile
from mh_edge.runtimes.lite.nodes import Node, fallbacks, listed, parts
from mh_edge.runtimes.lite.reasons import why_not
from mh_edge.runtimes.placement import Placement
from mh_edge.signature import Signature

BUILT_IN = "built-in kernels"
PROOF = "the interpreter's own list of operations"


class LiteSession(LiteFile):
    """A .tflite file in the TFLite interpreter; inputs with free sizes are resized to each feed."""

    resolver: ClassVar[str] = "AUTO"
    """Which kernels it takes, a name of OpResolverType; AUTO are optimized ones and the default delegate."""
    delegate: ClassVar[str] = ""
    """What the device is when it is a delegate of the interpreter; else the interpreter's own kernels are."""

    def _open(self) -> Signature:
        module = self._interpreters()
        kernels = vars(module.OpResolverType)[self.resolver]
        try:
            self._interpreter = module.Interpreter(
                model_path=str(self.path), num_threads=self.threads, experimental_op_resolver_type=kernels
            )
            self._shapes: dict[str, tuple[int | str, ...]] = dict.fromkeys(self._inputs, ())
            # A free size stands as 1 in the file, which may be too small to prepare (a convolution wants its width).
            if not self._told.free_dims():
                self._interpreter.allocate_tensors()
                self._shapes = {tensor.name: tensor.shape for tensor in self._told.inputs}
        except (ValueError, RuntimeError) as error:
            raise self._unreadable(error) from error
        return self._told

    def _run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        try:
            # Resizing drops the prepared plan and clears variable tensors, so only where the shape is new.
            changed = [name for name, array in feeds.items() if array.shape != self._shapes[name]]
            for name in changed:
                self._interpreter.resize_tensor_input(self._inputs[name], feeds[name].shape)
                self._shapes[name] = feeds[name].shape
            if changed:
                self._interpreter.allocate_tensors()
            for name, array in feeds.items():
                self._interpreter.set_tensor(self._inputs[name], array)
            self._interpreter.invoke()
            return [self._interpreter.get_tensor(index) for index in self._outputs]
        except (ValueError, RuntimeError) as error:
            self._shapes = dict.fromkeys(self._shapes, ())  # what a failed call left behind is prepared anew
            raise self.refuse(error) from error

    def placement(self) -> Placement:
        """By the entries that the delegate adds to the interpreter's list of operations. Only the main graph has such a
        list: the body of a loop is its one WHILE.
        """
        nodes, taken = self._delegated()
        inside = {place for part in taken for place in part}
        if not self.delegate:
            left = [(nodes[place], "") for place in sorted(inside)]
            return Placement(len(nodes), len(nodes) - len(left), 1, fallbacks(left, "a delegate"), PROOF)
        left = [(node, why_not(node)) for place, node in enumerate(nodes) if place not in inside]
        return Placement(len(nodes), len(inside), len(taken), fallbacks(left, BUILT_IN), PROOF)

    def _delegated(self) -> tuple[Sequence[Node], list[tuple[int, ...]]]:
        """The operations of the main graph; for each part that a delegate runs, the places of its own among them."""
        now = listed(self._interpreter)
        return now[: len(self._nodes)], parts(self._nodes, now[len(self._nodes) :])

    def close(self) -> None:
        del self._interpreter
