"""LiteRT on a GPU, through WebGPU: Vulkan on Linux, Metal on macOS, Direct3D on Windows."""

from __future__ import annotations

import re
import sys
from typing import Any

from mh_edge.errors import UnavailableError, UsageError
from mh_edge.packages import require
from mh_edge.runtimes import vulkan
from mh_edge.runtimes.lite.compiled import CompiledSession
from mh_edge.signature import Signature

PRECISIONS = ("float32", "float16")

NO_GPU = "Failed to initialize WebGPU environment"
PARTS = "Initializing WebGPU-based API from graph"
SHARED = re.compile(
    r"(?:(\d+) operations|No operations) will run on the GPU, and (?:the remaining|all) (\d+) operations"
)
REFUSALS = "Following operations are not supported by GPU delegate"
REFUSED = re.compile(r"([A-Z0-9_]+): (?!Following operations)(.*?)[. ]*$")


class LiteRtGpuSession(CompiledSession):
    """A .tflite file in LiteRT's GPU accelerator, which has no profiler: it tells no times of operations.

    settings: precision (float32; float16, which LiteRT itself takes where the GPU has it).
    """

    device = "litert-gpu"
    accelerator = "GPU"
    extra = "litert"
    takes = ("precision",)
    others = "its GPU accelerator takes one connected part of a graph"

    @classmethod
    def load(cls) -> str:
        found = super().load()
        if sys.platform.startswith("linux") and (lacking := vulkan.why_none()) is not None:
            raise UnavailableError(*lacking)
        return found

    def _options(self) -> dict[str, Any]:
        precision = self.settings.get("precision", PRECISIONS[0])
        if precision not in PRECISIONS:
            raise UsageError(
                f"LiteRT's GPU accelerator computes in no {precision!r}.",
                f"precision is one of {', '.join(PRECISIONS)}.",
            )
        if self.precision == "float32":
            self.precision = precision
        library = require("ai_edge_litert.compiled_model", self.extra, f"the device {self.device!r}")
        return {"gpu_options": library.GpuOptions(enforce_f32=precision == "float32")}

    def _open(self) -> Signature:
        signature = super()._open()
        self.notes = vulkan.notes()
        return signature

    def _lacks(self, said: str) -> UnavailableError | None:
        if NO_GPU not in said:
            return None
        line = next(line for line in said.splitlines() if NO_GPU in line)
        return UnavailableError(f"WebGPU finds no GPU: {line.rpartition(':')[2].strip()}", vulkan.install_line())

    def _shared_out(self, said: str) -> tuple[int, int, dict[str, str]]:
        # It speaks of each graph in turn, of those in loops too: ours is the one with as many operations.
        graphs = [one for one in SHARED.finditer(said) if int(one[1] or 0) + int(one[2]) == len(self._nodes)]
        if not graphs:
            return len(self._nodes), max(1, said.count(PARTS)), {}
        shared = graphs[-1]
        reasons = {}
        for line in reversed(said[: shared.start()].splitlines()):
            if (refused := REFUSED.match(line)) is None:
                break
            reasons[refused[1]] = refused[2]
        count = int(shared[1] or 0)
        return count, said[shared.end() :].partition(REFUSALS)[0].count(PARTS) if count else 0, reasons
