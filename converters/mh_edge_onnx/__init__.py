"""Keras to ONNX: `convert(program, signature, opset=..., runtime=...)`.

bridge: everything without a rule, through tf2onnx. expand: each marked layer by its rule in `rules`. cleanup: the
finished graph.
"""

from __future__ import annotations

from mh_edge_onnx.building import build, convert

__all__ = ["build", "convert"]
