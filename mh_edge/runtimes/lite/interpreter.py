"""What the devices of LiteRT's own interpreter share: the profiler that tells the times of operations."""

from __future__ import annotations

from typing import ClassVar

from mh_edge.runtimes.base import Feeds
from mh_edge.runtimes.lite import profiler
from mh_edge.runtimes.lite.session import LiteSession
from mh_edge.runtimes.lite.times import op_times
from mh_edge.runtimes.placement import OpTime


class LiteRtSession(LiteSession):
    """A .tflite file in the interpreter of ai-edge-litert."""

    kernels: ClassVar[str] = ""
    """The profiler's name for the kernels that the device uses; empty where it has none."""

    module = "ai_edge_litert"
    packages = ("ai-edge-litert",)
    extra = "litert"

    def op_times(self, feeds: Feeds, calls: int) -> tuple[OpTime, ...]:
        """By LiteRT's profiler, which sees single kernels of XNNPACK and the bodies of loops. It counts whole
        microseconds, a kernel of XNNPACK that takes less as 0. Empty for a version of LiteRT whose profiler is not
        known.
        """
        if not (self.kernels and profiler.known()):
            return ()
        arrays = self._checked(feeds)
        options = f'kernel_mode = "{self.kernels}"\n'
        if self.threads is not None:
            options += f"num_threads = {self.threads}\n"
        self._run(arrays)
        nodes, taken = self._delegated()
        events = profiler.events(self.path, arrays, calls, {"xnnpack": options})
        return op_times(events, nodes, taken, self.delegate)
