"""What holds for every test: TensorFlow is told to be quiet before anything imports it, and the longest files start
first.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# Warnings are pytest's to show, not to be written by each process that a test starts.
os.environ.setdefault("PYTHONWARNINGS", "ignore")

LONGEST = (
    "to_onnx/test_rules.py", "to_tflite/test_rules.py", "test_examples.py", "test_readme.py", "test_streaming.py",
    "generated/test_generated.py", "to_onnx/test_convert.py", "verification/test_verdict.py",
    "to_tflite/test_convert.py", "to_onnx/test_recurrent.py",
)  # fmt: skip
"""A worker that begins one of these when the other has nothing left to do keeps it waiting for a minute or two."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files, then by the number of tests; the order within a file stays."""
    counts = Counter(item.path for item in items)

    def turn(item: pytest.Item) -> tuple[int, int, str]:
        path = item.path.as_posix()
        place = next((place for place, name in enumerate(LONGEST) if path.endswith(f"tests/{name}")), len(LONGEST))
        return place, -counts[item.path], path

    items.sort(key=turn)
