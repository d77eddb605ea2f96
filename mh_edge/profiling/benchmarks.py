"""The benchmark binaries that are understood: what they are given on the device, and what their words mean.

Flags by their sources: benchmark_model by tflite/tools/benchmark/benchmark_tflite_model.cc in LiteRT f674577 (August
2026); onnxruntime_perf_test by onnxruntime/test/perftest/command_args_parser.cc in ONNX Runtime 011738c (2026), in the
form that its older getopt takes too.
"""

from __future__ import annotations

import json
import math
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from mh_edge.arrayfiles import read_npz
from mh_edge.artifact import read_manifest
from mh_edge.inspection import external_data
from mh_edge.packages import require
from mh_edge.profiling import benchmark_output as output
from mh_edge.profiling.adb import Phone
from mh_edge.profiling.cases import Case
from mh_edge.profiling.feeding import Arrays
from mh_edge.runtimes.lite.file import plain_name
from mh_edge.runtimes.ort.placement import Assigned, placed
from mh_edge.runtimes.ort.times import op_times, rules_of
from mh_edge.runtimes.placement import Fallback, OpTime, Placement

Run = Callable[[Sequence[str]], str]
"""Runs the binary with these arguments on the device -> what it printed."""

MOST_SECONDS = 300.0
"""The longest that one run of a binary may take."""

OP_CALLS = 20
"""In how many calls operations are timed, in a run of its own: it slows them down."""

OUTPUTS = "outputs"
"""What the file of them is called on the device."""

DENORMALS = "session.set_denormal_as_zero"
"""The session option that a manifest may ask for and perf_test has a flag for."""


@dataclass(frozen=True)
class Where:
    """What a run with profiling told. notes: what else must be known."""

    placement: Placement | None = None
    ops: tuple[OpTime, ...] = ()
    notes: tuple[str, ...] = ()


class Benchmark(ABC):
    """How a binary is asked to time an artifact, on the first of its feeds, in a folder of the device.

    flags: the user's own, the last ones on the line. precision: of the numbers that the device may compute in.
    """

    name: ClassVar[str]
    model: ClassVar[str]
    """What the artifact is called on the device."""

    def __init__(self, case: Case, threads: int | None, flags: Sequence[str]) -> None:
        self.case, self.threads, self.flags = case, threads, flags
        self.feeds = read_npz(case.files[0])

    @property
    def precision(self) -> str:
        return "float32"

    @abstractmethod
    def files(self, made: Path) -> dict[str, Path]:
        """What the device needs: name in its folder -> file. made: a local folder for those that are written first."""

    @abstractmethod
    def timed(self, folder: str, runs: int | None, seconds: float) -> list[str]:
        """The arguments with which the binary times so many calls, or as many as take so long."""

    def tried(self, folder: str) -> list[str]:
        """The arguments of the first run, whose outputs are asked for."""
        return self.timed(folder, 1, 0.0)

    def outputs(self, phone: Phone, folder: str, made: Path) -> Arrays | None:
        """What that run gave, by name; None where it does not tell."""
        del phone, folder, made
        return None

    @abstractmethod
    def printed(self, text: str) -> output.Printed | None:
        """The figures in what it printed, None where there are none."""

    @abstractmethod
    def where(self, phone: Phone, folder: str, run: Run, said: str) -> Where:
        """Where the nodes ran and how long each took, from another run. said: what the first run printed."""


class TfliteBenchmark(Benchmark):
    """TensorFlow Lite's `benchmark_model`."""

    name, model = "benchmark_model", "model.tflite"

    @cached_property
    def _inputs(self) -> list[np.ndarray]:
        return [self.feeds[name] for name in _names(self.case.artifact, "Inputs")]

    def files(self, made: Path) -> dict[str, Path]:
        found = {self.model: self.case.artifact}
        for place, array in enumerate(self._inputs):
            found[f"input{place}"] = made / f"input{place}"
            found[f"input{place}"].write_bytes(np.ascontiguousarray(array).tobytes())
        return found

    @property
    def precision(self) -> str:
        """Delegates for other processors than the CPU round to float16 where they are not told otherwise."""
        asked = any(word != "XNNPACK" for word in _delegates(self.flags)) or any("fp16" in flag for flag in self.flags)
        return "float16" if asked else "float32"

    def timed(self, folder: str, runs: int | None, seconds: float) -> list[str]:
        least = ["--num_runs=1", f"--min_secs={seconds:g}"] if runs is None else [f"--num_runs={runs}", "--min_secs=0"]
        return [*self._arguments(folder), *least, f"--max_secs={MOST_SECONDS:g}", *self.flags]

    def tried(self, folder: str) -> list[str]:
        return [*self.timed(folder, 1, 0.0), f"--output_filepath={folder}/{OUTPUTS}"]

    def outputs(self, phone: Phone, folder: str, made: Path) -> Arrays | None:
        names = _names(self.case.artifact, "Outputs")
        if not phone.pull(f"{folder}/{OUTPUTS}", made / OUTPUTS) or set(names) != self.case.expected[0].keys():
            return None
        content, found = (made / OUTPUTS).read_bytes(), {}
        for name in names:  # one after the other, in the order of the graph
            like = self.case.expected[0][name]
            own, content = content[: like.nbytes], content[like.nbytes :]
            array = np.frombuffer(own[: len(own) - len(own) % like.itemsize], like.dtype)
            found[name] = array.reshape(like.shape) if array.size == like.size else array
        return found

    def _arguments(self, folder: str) -> list[str]:
        # Inputs are taken in the order of the graph; the names only tell them apart, and real ones may hold commas.
        names = [f"input{place}" for place in range(len(self._inputs))]
        shapes = [",".join(map(str, array.shape)) for array in self._inputs]
        threads = [] if self.threads is None else [f"--num_threads={self.threads}"]
        return [
            f"--graph={folder}/{self.model}",
            f"--input_layer={','.join(names)}",
            f"--input_layer_shape={':'.join(shapes)}",
            f"--input_layer_value_files={','.join(f'{name}:{folder}/{name}' for name in names)}",
            *threads,
        ]

    def printed(self, text: str) -> output.Printed | None:
        return output.tflite(text)

    def where(self, phone: Phone, folder: str, run: Run, said: str) -> Where:
        asked = _delegates(self.flags)
        # The default delegate would take, and hide, what the one that was asked for leaves.
        plain = ["--use_xnnpack=false"] if asked and not any("use_xnnpack" in flag for flag in self.flags) else []
        profiling = [f"--num_runs={OP_CALLS}", "--min_secs=0", f"--max_secs={MOST_SECONDS:g}"]
        profiled = run([*self._arguments(folder), *profiling, "--enable_op_profiling=true", *self.flags, *plain])
        found = output.kernels(profiled)
        notes = ["NNAPI has nothing but its CPU reference on this device"] * ("[nnapi-reference]" in said)
        if unknown := output.unknown_flags(said):
            notes.append(f"this benchmark_model does not know {unknown}")
        took = output.replaced(said)
        if not asked and took:
            shares = ", ".join(f"{one.delegate} {one.nodes} of {one.of} nodes" for one in took)
            notes.append(f"on the phone's CPU: {shares}, TensorFlow Lite's own kernels the others")
        placement = _tflite_placement(took, found, asked, output.refusals(said))
        return Where(placement, output.op_times(found, asked), tuple(notes))


class OrtBenchmark(Benchmark):
    """ONNX Runtime's `onnxruntime_perf_test`."""

    name, model = "onnxruntime_perf_test", "model.onnx"

    def files(self, made: Path) -> dict[str, Path]:
        onnx = require("onnx", "cpu", "a benchmark of an .onnx file")
        found = {self.model: self.case.artifact}
        model = onnx.load_model(str(self.case.artifact), load_external_data=False)
        found |= {name: self.case.artifact.parent / name for name in external_data(model)}
        for place, (name, array) in enumerate(self.feeds.items()):
            path = made / f"input_{place}.pb"
            path.write_bytes(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name).SerializeToString())
            found[f"test_data_set_0/{path.name}"] = path  # where perf_test looks for inputs
        return found

    @property
    def provider(self) -> str:
        """What follows -e, in small letters."""
        words = [word for flag in self.flags for word in flag.split("=", 1)]
        after = [words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-e", "--e")]
        return (after[-1] if after else "cpu").lower()

    def timed(self, folder: str, runs: int | None, seconds: float) -> list[str]:
        least = ["-m", "times", "-r", str(runs)] if runs is not None else ["-m", "duration", "-t", _whole(seconds)]
        return [*self._arguments(), *least, *self.flags, f"{folder}/{self.model}"]

    def _arguments(self) -> list[str]:
        threads = [] if self.threads is None else ["-x", str(self.threads)]
        manifest = read_manifest(self.case.artifact)
        hint = ["-z"] if manifest is not None and manifest.session_options.get(DENORMALS) == "1" else []
        # Only the CPU takes free sizes as they are.
        fixed = {} if self.provider == "cpu" else self.case.sizes
        sizes = [("-f", f"{name}:{size}") for name, size in fixed.items() if not re.search(r"[\s:]", name)]
        return [*threads, *hint, *chain.from_iterable(sizes)]

    def printed(self, text: str) -> output.Printed | None:
        return output.onnxruntime(text)

    def where(self, phone: Phone, folder: str, run: Run, said: str) -> Where:
        del said
        runs = ["-m", "times", "-r", str(OP_CALLS)]
        run([*self._arguments(), *runs, "-p", f"{folder}/profile", *self.flags, f"{folder}/{self.model}"])
        try:
            events = json.loads(phone.shell(f"cat {folder}/profile*").stdout)
        except json.JSONDecodeError:
            return Where(notes=("ONNX Runtime wrote no profile there, so nothing tells where its nodes ran",))
        kernels = [event for event in events if event.get("cat") == "Node" and "provider" in event.get("args", {})]
        known = {str(event["args"]["provider"]) for event in kernels}
        provider = next((one for one in known if one.lower() == f"{self.provider}executionprovider"), self.provider)
        times = op_times(events, provider, OP_CALLS, rules_of(self.case.artifact))
        nodes = {
            str(event["args"]["node_index"]): (event["name"].removesuffix("_kernel_time"), event["args"])
            for event in kernels
        }
        assigned = [
            Assigned(name, arguments["op_name"], arguments["provider"], part)
            for part, (name, arguments) in enumerate(nodes.values())
        ]
        proof = "ONNX Runtime's profile; what a provider took as one piece counts as one node"
        return Where(placed(assigned, provider, proof), tuple(times))


BENCHMARKS = {"tflite": TfliteBenchmark, "onnx": OrtBenchmark}


def _tflite_placement(
    took: Sequence[output.Replaced],
    kernels: Sequence[output.Kernel],
    asked: Sequence[str],
    reasons: Mapping[str, str],
) -> Placement | None:
    plain = [one for one in kernels if not one.inside and not one.delegate]
    nodes = took[0].of if took else len(plain)
    proof = "TensorFlow Lite's log of its delegates"
    if not nodes:
        return None
    if not asked:
        return Placement(nodes, nodes, 1, (), proof)
    own = sum(one.nodes for one in took if any(output.named(one.delegate, word) for word in asked))
    parts = sum(one.delegate and any(output.named(one.op, word) for word in asked) for one in kernels)
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for one in plain:
        groups[one.op].append(one.name)
    fallbacks = [
        Fallback(op, len(names), tuple(filter(None, names)), "CPU", reasons.get(op, "")) for op, names in groups.items()
    ]
    if len(plain) != nodes - own and nodes > own:  # there is no table, or not of the same graph
        fallbacks = [Fallback("(not named)", nodes - own, (), "CPU")]
    return Placement(nodes, own, parts or min(1, own), tuple(fallbacks) if nodes > own else (), proof)


def _delegates(flags: Sequence[str]) -> tuple[str, ...]:
    """What the tool calls the delegates that these flags ask for: "GPU"."""
    found = [re.fullmatch(r"--use_(\w+?)(?:=(?:true|1))?", flag) for flag in flags]
    libraries = [re.match(r"--(external|stable)_delegate", flag) for flag in flags]
    return tuple(dict.fromkeys(match[1].upper() for match in (*found, *libraries) if match))


def _names(path: Path, ends: Literal["Inputs", "Outputs"]) -> list[str]:
    """The names of the inputs or outputs, in the order of the graph, which need not be that of the signature."""
    schema = require("ai_edge_litert.schema_py_generated", "litert", "a benchmark of a .tflite file")
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    named: dict[int, list[str]] = {}  # one tensor may be several outputs
    if model.SignatureDefsLength():
        for entry in _all(model.SignatureDefs(0), ends):
            named.setdefault(entry.TensorIndex(), []).append(entry.Name().decode())
    indices = map(int, _all(graph, ends))
    return [
        named[index].pop(0) if named.get(index) else plain_name(graph.Tensors(index).Name().decode())
        for index in indices
    ]


def _all(table: Any, ends: str) -> list[Any]:
    """The inputs or outputs of a table of TFLite's schema."""
    if ends == "Inputs":
        return [table.Inputs(place) for place in range(table.InputsLength())]
    return [table.Outputs(place) for place in range(table.OutputsLength())]


def _whole(seconds: float) -> str:
    return str(max(1, math.ceil(seconds)))
