"""Golden cases: inputs of an artifact, and the outputs that it must give wherever it runs.

An output is right where |got - expected| <= allowed for each of its numbers, with NaN and infinity in the same places.

    allowed = limit · max(largest |expected| of the case, FLOOR · largest |expected| of all cases)

with the limit that `mh_edge.profiling.agreement.ALLOWED` has for the numbers in which the file is computed. Whole
numbers and booleans must be equal; integers that stand for other numbers may be off by the steps that make up
`allowed`.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.arrayfiles import read_npz, write_npz
from mh_edge.artifact import Artifact
from mh_edge.errors import InputError, NotEqualError
from mh_edge.profiling.agreement import ALLOWED, difference
from mh_edge.profiling.cases import named, reference_device
from mh_edge.profiling.feeding import Sizes, given, scaled, unscaled
from mh_edge.runtimes.apart import Apart, Opened
from mh_edge.runtimes.base import PRECISIONS, Scale
from mh_edge.signature import Signature
from mh_edge.verification.feeds import Spec, build, grid, spares

Arrays = Mapping[str, np.ndarray]

Found = tuple[str, Arrays, Arrays]
"""Name, inputs and outputs of a case."""

SEED = 0

MOST_BYTES = 2_000_000
"""Of the arrays of one artifact: a bundle is to be copied to small devices."""

LEAST_CASES = 3
"""Where the first cases of a kind are refused, others are tried until there are so many."""

FLOOR = 0.01
"""A case whose outputs are nearly zero is judged by the size of those of the others."""

DTYPES = "biuf"
"""Kinds of numbers that a golden case may hold."""

ALIGNMENT = 8
"""Arrays begin at multiples of so many bytes, so that readers can take them where they lie."""


@dataclass(frozen=True)
class Case:
    """inputs, outputs: arrays by name. allowed: by output, the largest difference that is right."""

    name: str
    inputs: Arrays
    outputs: Arrays
    allowed: Mapping[str, float]


@dataclass(frozen=True)
class Golden:
    """reference: what gave the outputs ("ONNX Runtime 1.31.1, cpu"). precision: the numbers in which the file, or the
    platform, computes.
    """

    reference: str
    precision: str
    cases: tuple[Case, ...]

    def to_json(self) -> dict[str, Any]:
        """What bundle.json says of them: each array's dtype, shape and place in the file that `content` makes."""
        place = 0
        cases = []
        for case in self.cases:
            sides = []
            for arrays in (case.inputs, case.outputs):
                side: dict[str, dict[str, Any]] = {}
                for name, array in arrays.items():
                    side[name] = {"dtype": str(array.dtype), "shape": list(array.shape), "offset": place}
                    place += padded(array.nbytes)
                sides.append(side)
            for name, entry in sides[1].items():
                entry["allowed"] = case.allowed[name]
            cases.append({"name": case.name, "inputs": sides[0], "outputs": sides[1]})
        return {"reference": self.reference, "precision": self.precision, "cases": cases}

    def content(self) -> bytes:
        """All arrays, one after the other: little-endian, the last axis first, each padded to ALIGNMENT."""
        arrays = (array for case in self.cases for side in (case.inputs, case.outputs) for array in side.values())
        return b"".join(_little(array).ljust(padded(array.nbytes), b"\0") for array in arrays)

    @classmethod
    def read(cls, told: Mapping[str, Any], content: bytes) -> Golden:
        """What `to_json` and `content` wrote. Raises KeyError, TypeError or ValueError for anything else."""

        def arrays(side: Mapping[str, Any]) -> dict[str, np.ndarray]:
            return {name: _array(entry, content) for name, entry in side.items()}

        cases = tuple(
            Case(
                case["name"],
                arrays(case["inputs"]),
                arrays(case["outputs"]),
                {name: float(entry["allowed"]) for name, entry in case["outputs"].items()},
            )
            for case in told["cases"]
        )
        return cls(told["reference"], told["precision"], cases)


@dataclass(frozen=True)
class Worst:
    """The number nearest to what is allowed, or furthest beyond it. share: error / allowed; at most 1 where it is
    right. why: what else is wrong ("the output 'y' is missing"); the numbers are none then.
    """

    case: str
    output: str
    index: tuple[int, ...]
    expected: float
    got: float
    error: float
    allowed: float
    why: str = ""

    @property
    def share(self) -> float:
        if self.why:
            return math.inf
        return self.error / self.allowed if self.allowed else (math.inf if self.error else 0.0)

    @property
    def right(self) -> bool:
        return self.share <= 1.0

    def __str__(self) -> str:
        if self.why:
            return f"{self.case}: {self.why}"
        place = f"{self.output}[{', '.join(map(str, self.index))}]" if self.index else self.output
        return (
            f"{self.case}: {place} is {self.got:g}, expected {self.expected:g}; the difference {self.error:.2g} "
            f"{'is within' if self.right else 'is beyond'} {self.allowed:.2g}"
        )

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "index": list(self.index), "share": self.share}


def make(artifact: Artifact, arrays: Arrays | None, source: str, limit: float | None, precision: str) -> Golden:
    """The golden cases of an artifact, by what its reference device gives here: of each kind of values and masks one,
    and the first samples of the user's arrays, at most MOST_BYTES.

    limit: in place of what ALLOWED says. precision: of the platform. Raises InputError where the artifact runs on no
    feed, and what the reference device raises.
    """
    device = reference_device(artifact.format)
    with Apart(device) as session, _folder() as folder:
        opened = session.open(artifact.path)
        runtime = session.load()
        signature = named(opened.signature, artifact.signature)
        first = [] if arrays is None else _given(arrays, signature, opened, source)
        first += _drawn(signature, opened)
        found: list[Found] = []
        size = 0
        for number, (name, inputs) in enumerate(itertools.chain(first, _further(signature, opened))):
            if number >= len(first) and len(found) >= LEAST_CASES:
                break
            try:
                outputs = _outputs(session, inputs, folder)
            except InputError:
                continue  # a length that the model does not take
            size += sum(array.nbytes for side in (inputs, outputs) for array in side.values())
            if found and size > MOST_BYTES:
                break
            found.append((name, inputs, outputs))
    if not found:
        raise InputError(
            f"{str(artifact.path)!r} runs on none of the inputs that were drawn for it.",
            "Give real ones: --feeds x.npz.",
        )
    coarsest = max(precision, opened.precision, key=PRECISIONS.index)
    limit = ALLOWED[coarsest] if limit is None else limit
    allowed = allowances([outputs for _, _, outputs in found], opened.output_scales, limit)
    cases = tuple(Case(name, inputs, outputs, one) for (name, inputs, outputs), one in zip(found, allowed, strict=True))
    return Golden(f"{runtime}, {device}", coarsest, cases)


def run(golden: Golden, model: Path, device: str, settings: Mapping[str, str] | None = None) -> Worst:
    """Run the cases of a file on a device of this machine, all of them twice on one session -> the worst number.

    Raises what the device raises.
    """
    worst: list[Worst] = []
    with Apart(device) as session, _folder() as folder:
        session.open(model, settings=settings)
        for case in (*golden.cases, *golden.cases):
            worst.append(judge(case, _outputs(session, case.inputs, folder)))
    return max(worst, key=lambda one: one.share)


def require_right(worst: Worst, model: Path, where: str) -> None:
    """Raise NotEqualError where the worst number is not right."""
    if not worst.right:
        raise NotEqualError(
            f"{model.name} does not give its golden numbers on {where}: {worst}",
            "mh-edge profile says more of that device; --rtol allows more.",
        )


def judge(case: Case, got: Arrays) -> Worst:
    """The worst number of one case."""
    worst: Worst | None = None
    for name, expected in case.outputs.items():
        if name not in got:
            return _other(case, f"the output {name!r} is missing")
        array = got[name]
        if (array.dtype, array.shape) != (expected.dtype, expected.shape):
            kinds = (f"{one.dtype} {one.shape}" for one in (array, expected))
            return _other(case, f"the output {name!r} is {', expected '.join(kinds)}")
        if not array.size:
            continue
        off = _off(array, expected)
        index = np.unravel_index(int(np.argmax(off)), off.shape)
        found = Worst(
            case.name,
            name,
            tuple(map(int, index)),
            float(expected[index]),
            float(array[index]),
            float(off[index]),
            case.allowed[name],
        )
        worst = found if worst is None else max(worst, found, key=lambda one: one.share)
    if extra := [name for name in got if name not in case.outputs]:
        return _other(case, f"there is an output {extra[0]!r}, which is not expected")
    return worst or Worst(case.name, "", (), 0.0, 0.0, 0.0, 0.0)


def idle(golden: Golden) -> bool:
    """Whether a device that computes nothing would give the right numbers: each output is one number in all cases."""

    def constant(name: str) -> bool:
        return len(np.unique(np.concatenate([case.outputs[name].ravel() for case in golden.cases]))) < 2

    return all(map(constant, golden.cases[0].outputs))


def _off(got: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """|got - expected|. Integers that differ are at least 1 apart, also beyond 2^53, where float64 has not all."""
    numbers = difference(got.astype(np.float64), expected.astype(np.float64))
    return numbers if expected.dtype.kind == "f" else np.where(got == expected, 0.0, np.maximum(numbers, 1.0))


def _other(case: Case, why: str) -> Worst:
    return Worst(case.name, "", (), 0.0, 0.0, math.inf, 0.0, why)


def _given(arrays: Arrays, signature: Signature, opened: Opened, source: str) -> list[tuple[str, Arrays]]:
    checks = given(arrays, signature, Sizes(), opened.input_scales, source).checks
    return [(f"feeds {number}", feed) for number, feed in enumerate(checks)]


def _drawn(signature: Signature, opened: Opened) -> list[tuple[str, Arrays]]:
    """A feed of each kind of values and masks; where sizes are free, one in which none is 1, but for the first."""
    floats = unscaled(signature, opened.input_scales)
    kinds: dict[str, Spec] = {}
    for spec in grid(floats, SEED):
        if spec.kind not in kinds or (len(kinds) > 1 and _flat(kinds[spec.kind])):
            kinds[spec.kind] = spec
    return [_built(floats, spec, opened.input_scales) for spec in kinds.values()]


def _flat(spec: Spec) -> bool:
    return any(size == 1 for _, size in spec.sizes)


def _further(signature: Signature, opened: Opened) -> Iterator[tuple[str, Arrays]]:
    floats = unscaled(signature, opened.input_scales)
    for spec in spares(floats, SEED):
        yield _built(floats, spec, opened.input_scales)


def _built(floats: Signature, spec: Spec, scales: Mapping[str, Scale]) -> tuple[str, Arrays]:
    sizes = "".join(f", {name} {size}" for name, size in spec.sizes)
    return f"{spec.kind}{sizes}", scaled(build(floats, spec).arrays, scales)


def _outputs(session: Apart, inputs: Arrays, folder: Path) -> Arrays:
    feeds, outputs = folder / "inputs.npz", folder / "outputs.npz"
    write_npz(feeds, inputs)
    session.run(feeds, outputs)
    return read_npz(outputs)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="mh-edge-") as folder:
        yield Path(folder)


def allowances(outputs: Sequence[Arrays], scales: Mapping[str, Scale], limit: float) -> list[dict[str, float]]:
    """By case and output."""
    largest = [{name: _largest(array, scales.get(name)) for name, array in one.items()} for one in outputs]
    overall = {name: max(one[name] for one in largest) for name in outputs[0]}

    def one(name: str, array: np.ndarray, size: float) -> float:
        off = limit * max(size, FLOOR * overall[name])
        if (scale := scales.get(name)) is not None:
            return float(max(1, math.ceil(off / scale.scale)))
        return off if array.dtype.kind in "fc" else 0.0

    return [
        {name: one(name, array, sizes[name]) for name, array in arrays.items()}
        for arrays, sizes in zip(outputs, largest, strict=True)
    ]


def _largest(array: np.ndarray, scale: Scale | None) -> float:
    numbers = np.abs((array if scale is None else scale.numbers(array)).astype(np.float64))
    finite = numbers[np.isfinite(numbers)]
    return float(finite.max()) if finite.size else 0.0


def padded(size: int) -> int:
    """Bytes of an array with what fills them up to ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def _little(array: np.ndarray) -> bytes:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()


def _array(entry: Mapping[str, Any], content: bytes) -> np.ndarray:
    """Raises ValueError for what lies beyond the content, or is no array of numbers."""
    dtype, shape, offset = np.dtype(entry["dtype"]), tuple(entry["shape"]), entry["offset"]
    if dtype.kind not in DTYPES or offset < 0 or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"no array: {entry}")
    return np.frombuffer(content, dtype.newbyteorder("<"), math.prod(shape), offset).reshape(shape).astype(dtype)
