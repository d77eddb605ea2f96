"""Inputs and outputs that stay on the device: what an application that computes there on and on binds once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mh_edge.signature import Tensor

GRAPH, NO_GRAPH = "gpu_graph_id", "-1"
"""The option of a run that names the CUDA graph which it records or replays, and the name for none."""


class Binding:
    """The feeds on the device; `call` runs on them and returns when the device is done.

    memory, number: where, as ONNX Runtime names it ("cuda", 0). graph: the name of a CUDA graph that the calls record
    and then replay, which wants the same places for inputs and outputs in each; None for none.
    """

    def __init__(
        self,
        onnxruntime: Any,
        session: Any,
        feeds: Mapping[str, np.ndarray],
        outputs: Sequence[Tensor],
        memory: str,
        number: int,
        graph: str | None = None,
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self._options = None
        move = onnxruntime.OrtValue.ortvalue_from_numpy
        self._inputs = {name: move(array, memory, number) for name, array in feeds.items()}
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        if graph is None:
            for tensor in outputs:
                self._binding.bind_output(tensor.name, memory, number)
            return
        # A graph writes where it wrote when it was recorded, so there must be places of the right size before that.
        once = onnxruntime.RunOptions()
        once.add_run_config_entry(GRAPH, NO_GRAPH)
        for tensor, array in zip(outputs, session.run(None, dict(feeds), once), strict=True):
            self._binding.bind_ortvalue_output(tensor.name, move(array, memory, number))
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(GRAPH, graph)

    def refill(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Put other feeds of the same shapes into the same places."""
        for name, array in feeds.items():
            self._inputs[name].update_inplace(array)

    def call(self) -> Binding:
        """Run once; the outputs stay on the device."""
        self._session.run_with_iobinding(self._binding, self._options)
        self._binding.synchronize_outputs()
        return self

    def outputs(self) -> list[np.ndarray]:
        return list(self._binding.copy_outputs_to_cpu())
