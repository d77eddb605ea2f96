"""What mobile delegates would take of a model file, foretold without the device: see `forecasting.forecast`."""
