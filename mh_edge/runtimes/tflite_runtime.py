"""The older package of the same interpreter, for devices that still carry it."""

from __future__ import annotations

from mh_edge.runtimes.lite.session import LiteSession
from mh_edge.runtimes.placement import Placement


class TfliteRuntimeSession(LiteSession):
    """A .tflite file in tflite-runtime's interpreter."""

    device = "tflite-runtime"
    module = "tflite_runtime"
    packages = ("tflite-runtime",)
    extra = "tflite-runtime"

    def placement(self) -> Placement:
        raise NotImplementedError
