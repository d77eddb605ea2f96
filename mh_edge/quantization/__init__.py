"""Float artifact -> smaller integer or half-precision artifact, and what it lost, measured."""

from mh_edge.quantization.quantizing import quantize
from mh_edge.quantization.result import GateError, Quantization
from mh_edge.quantization.scheme import Options

__all__ = ["GateError", "Options", "Quantization", "quantize"]
