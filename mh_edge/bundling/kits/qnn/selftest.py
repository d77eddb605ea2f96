"""Runs the golden cases of this bundle on the Hexagon processor: `python selftest.py`, with onnxruntime,
onnxruntime-qnn and numpy. Exits with 0 if every number is right, with 1 if one is not.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


def array(told: dict[str, Any], content: bytes) -> np.ndarray:
    """An array of the golden cases: little-endian, the last axis first."""
    shape = told["shape"]
    dtype = np.dtype(told["dtype"])
    flat = np.frombuffer(content, dtype.newbyteorder("<"), int(np.prod(shape, dtype=np.int64)), told["offset"])
    return flat.reshape(shape).astype(dtype)


def share(got: np.ndarray, expected: np.ndarray, allowed: float) -> float:
    """The largest difference as a share of what is allowed: right up to 1; NaN and infinity in the same places."""
    if (got.dtype, got.shape) != (expected.dtype, expected.shape):
        return float("inf")
    a, b = got.astype(np.float64), expected.astype(np.float64)
    with np.errstate(invalid="ignore"):
        least = 1.0 if expected.dtype.kind in "iu" else 0.0  # float64 does not hold all integers
        off = np.where((got == expected) | (np.isnan(a) & np.isnan(b)), 0.0, np.maximum(np.abs(a - b), least))
    off[np.isnan(off)] = np.inf
    worst = float(off.max(initial=0.0))
    if not worst:
        return 0.0
    return worst / allowed if allowed else float("inf")


def check(artifact: dict[str, Any]) -> bool:
    """Run all cases of an artifact, twice: what a session keeps between calls would show."""
    sys.dont_write_bytecode = True  # or there would be a new file in the bundle
    from sample import opened

    golden = artifact["golden"]
    content = (HERE / golden["path"]).read_bytes()
    session = opened(HERE / artifact["path"])
    worst = 0.0
    for case in golden["cases"] * 2:
        feeds = {name: array(told, content) for name, told in case["inputs"].items()}
        outputs = session.run(list(case["outputs"]), feeds)
        for (name, told), got in zip(case["outputs"].items(), outputs, strict=True):
            found = share(got, array(told, content), told["allowed"])
            if found > 1.0:
                print(f"WRONG  {artifact['path']}, {case['name']}: {name} is off by {found:g} times what is allowed")
            worst = max(worst, found)
    print(
        f"{'RIGHT' if worst <= 1.0 else 'WRONG'}  {artifact['path']}: {len(golden['cases'])} golden cases, twice; "
        f"the worst number uses {worst:.2g} of what it is allowed"
    )
    return worst <= 1.0


if __name__ == "__main__":
    bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    results = [check(artifact) for artifact in bundle["artifacts"]]
    sys.exit(0 if results and all(results) else 1)
