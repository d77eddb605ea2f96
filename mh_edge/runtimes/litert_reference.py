"""LiteRT on the CPU with its reference kernels: plain loops, slow, that the other kernels are tested against."""

from __future__ import annotations

from mh_edge.runtimes.lite.interpreter import LiteRtSession


class LiteRtReferenceSession(LiteRtSession):
    """A .tflite file in LiteRT's interpreter on reference kernels.

    It has no times of operations: LiteRT's profiler, asked for these kernels, takes the optimized ones.
    """

    device = "litert-reference"
    resolver = "BUILTIN_REF"
