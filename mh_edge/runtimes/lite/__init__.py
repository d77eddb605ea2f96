"""What the devices of the TFLite interpreter share."""
