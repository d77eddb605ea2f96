"""What holds for every test: TensorFlow is told to be quiet before anything imports it."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Warnings are pytest's to show, not to be written by each process that a test starts.
os.environ.setdefault("PYTHONWARNINGS", "ignore")
