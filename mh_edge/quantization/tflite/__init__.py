"""Quantizing .tflite files, on litert-quantizer: the flatbuffer, its masks, and the schemes."""
