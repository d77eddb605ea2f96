"""LiteRT on the CPU with its default delegate, XNNPACK: the reference runtime of every TFLite artifact."""

from __future__ import annotations

from mh_edge.runtimes.lite.interpreter import LiteRtSession


class XnnpackSession(LiteRtSession):
    """A .tflite file in LiteRT's interpreter; operations that XNNPACK does not take run on its built-in kernels."""

    device = "xnnpack"
    delegate = "XNNPACK"
    kernels = "delegate"
