"""The exported model on sequences of several lengths, padded together: in a worker of Ray, or without Ray."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mh_edge.runtimes import open_session

WIDTH = 9


class Classifier:
    """lengths: (n,), steps: (sum of lengths, 9), one sequence after the other -> probabilities: (n, 10).

    threads: those of one operation. Where several workers share a machine, workers times threads is the number of its
    cores: ONNX Runtime left alone starts a thread for each core in every worker. The session options of the manifest
    are applied, and feeds that do not fit the file are an InputError.
    """

    def __init__(self, model: str | Path, threads: int = 1) -> None:
        self.session = open_session(model, threads=threads)

    def __call__(self, lengths: np.ndarray, steps: np.ndarray) -> np.ndarray:
        valid = np.arange(max(lengths.max(), 1)) < lengths[:, None]
        rows = np.zeros((*valid.shape, WIDTH), np.float32)
        rows[valid] = steps
        return self.session.run({"rows": rows, "valid": valid})["digit"]
