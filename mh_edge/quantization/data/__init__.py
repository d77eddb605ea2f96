"""Calibration and evaluation data in every form, read batch by batch."""
