"""Schemes for .onnx files, on onnxruntime.quantization."""
