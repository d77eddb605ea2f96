"""Schemes for .tflite files, on litert-quantizer."""
