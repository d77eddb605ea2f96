"""Keras to TFLite: `convert(program, signature)`.

context: what a rule works with. rules: one file for each layer. bridge: everything without a rule, through TensorFlow's
own converter, built-in operations only. writing: the finished flatbuffer.
"""

from __future__ import annotations

from mh_edge_tflite.convert import convert

__all__ = ["convert"]
