"""LiteRT on the CPU with its default delegate, XNNPACK: the reference runtime of every TFLite artifact."""

from __future__ import annotations

from mh_edge.runtimes.lite.session import LiteSession
from mh_edge.runtimes.placement import Placement


class XnnpackSession(LiteSession):
    """A .tflite file in LiteRT's interpreter."""

    device = "xnnpack"
    module = "ai_edge_litert"
    packages = ("ai-edge-litert",)
    extra = "litert"

    def placement(self) -> Placement:
        raise NotImplementedError
