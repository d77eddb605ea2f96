"""What the devices of ONNX Runtime share."""
