"""ONNX Runtime on the CPU, the reference runtime of every ONNX artifact."""

from __future__ import annotations

from mh_edge.runtimes.ort.session import OrtSession


class CpuSession(OrtSession):
    """An .onnx file on ONNX Runtime's own CPU kernels."""

    device = "cpu"
    provider = "CPUExecutionProvider"
    extra = "cpu"
