"""Running a scheme on a model, and what every file that a scheme makes has to pass."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime

from mh_edge.artifact import file_sha256
from mh_edge.inspection import inspect
from mh_edge.quantization.onnx.model import nodes
from mh_edge.quantization.scheme import Options, Quantized, find_scheme
from tests.quantization.models import Case


@dataclass(frozen=True)
class Outcome:
    """A quantized file beside its source: what both compute, and what the scheme said."""

    path: Path
    files: tuple[Path, ...]
    quantized: Quantized
    truth: list[np.ndarray]
    found: list[np.ndarray]

    @property
    def ops(self) -> Counter[str]:
        return Counter(node.op_type for node in nodes(onnx.load(self.path)))

    @property
    def kept(self) -> dict[str, str]:
        return {one.tensor: one.reason for one in self.quantized.kept_float}

    @property
    def error(self) -> float:
        """The largest mean error of an output, in units of its standard deviation."""
        return max(float(np.abs(y - r).mean() / r.std()) for y, r in zip(self.found, self.truth, strict=True))


def apply(
    name: str, case: Case, folder: Path, options: Options | None = None, seen: Mapping[str, np.ndarray] | None = None
) -> Outcome:
    """Save the model, quantize it, check the file, open and run it. seen: what it is calibrated on, if not that."""
    source, scheme, options = case.save(folder / "float.onnx"), find_scheme("onnx", name), options or Options()
    artifact = inspect(source)
    ranges = scheme.calibrate(artifact, options, [seen or case.feeds]) if scheme.calibrate else {}
    quantized = scheme.quantize(artifact, ranges, options)
    files = tuple(quantized.save(folder / "quantized.onnx"))
    onnx.checker.check_model(str(files[0]), full_check=True)
    return Outcome(files[0], files, quantized, run(source, case), run(files[0], case))


def run(path: Path, case: Case) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return list(onnxruntime.InferenceSession(str(path), options).run(None, dict(case.feeds)))


_AGAIN = """
import sys
from pathlib import Path
from mh_edge.inspection import inspect
from mh_edge.quantization.scheme import Options, find_scheme
find_scheme("onnx", sys.argv[1]).quantize(inspect(sys.argv[2]), {}, Options()).save(Path(sys.argv[3]))
"""


def hashes_in_other_processes(name: str, source: Path, folder: Path) -> set[str]:
    """The sha256 of what a scheme writes in two processes whose sets and dicts are ordered differently."""
    found = set()
    for seed in ("1", "2"):
        made = folder / f"{seed}.onnx"
        command = [sys.executable, "-c", _AGAIN, name, str(source), str(made)]
        subprocess.run(command, check=True, env={"PYTHONHASHSEED": seed, "PATH": ""}, timeout=120)
        found.add(file_sha256(made))
    return found
