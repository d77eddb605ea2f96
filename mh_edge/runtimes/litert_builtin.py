"""LiteRT on the CPU with its own optimized kernels, without any delegate."""

from __future__ import annotations

from mh_edge.runtimes.lite.interpreter import LiteRtSession


class LiteRtBuiltinSession(LiteRtSession):
    """A .tflite file in LiteRT's interpreter, without XNNPACK: what is left where a delegate takes nothing."""

    device = "litert-builtin"
    resolver = "BUILTIN_WITHOUT_DEFAULT_DELEGATES"
    kernels = "builtin"
