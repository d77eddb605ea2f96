"""What tests of Android devices share: an artifact, the feed it is given, and the words of a benchmark of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mh_edge.profiling.cases import Case
from mh_edge.runtimes.apart import Opened
from mh_edge.signature import Signature
from profiling import printed

X = np.array([1.0, 2.0], np.float32)
CPU_TEXT = printed.TFLITE.format(delegates=printed.XNNPACK, **printed.PERCENTILES)
TABLE = printed.table(
    ("TfLiteXNNPackDelegate", 3.0, "[a, b]:6"),
    ("Fully Connected (NC, F32) GEMM", 2.0, "Delegate/Fully Connected (NC, F32) GEMM:0"),
    ("Softmax (NC, F32)", 0.5, "Delegate/Softmax (NC, F32):1"),
    ("CUMSUM", 1.0, "[heads/mh_edge.MultiHead/cumsum, other]:2"),
    ("AllocateTensors", 7.0, "AllocateTensors/0"),
)


def case(artifact: Path, feeds: dict[str, np.ndarray], sizes: dict[str, int], expected: np.ndarray = X * X) -> Case:
    """What `profile` knows of an artifact before it is run on a device."""
    np.savez(artifact.with_suffix(".npz"), **feeds)  # type: ignore[arg-type]
    return Case(
        artifact=artifact,
        files=(artifact.with_suffix(".npz"),),
        sizes=sizes,
        batch=len(feeds["x"]),
        source="a test",
        reference="litert-builtin",
        opened=Opened(Signature((), ()), {}, {}, "float32", (), 1.0),
        expected=({"y": expected},),
        bytes=artifact.stat().st_size,
        quantized=None,
    )
