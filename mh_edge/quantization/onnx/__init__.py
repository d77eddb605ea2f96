"""Quantizing .onnx files, on onnxruntime.quantization: the graph, its products and masks, and the schemes."""
