"""What the benchmark binaries of TensorFlow Lite and ONNX Runtime print, read into numbers.

`benchmark_model` by its source in LiteRT f674577 (August 2026): tflite/tools/benchmark/benchmark_model.cc,
tflite/profiling/profile_summarizer.cc; the "Replacing" line is tflite/core/subgraph.cc's, written to the standard
error of Android's programs. Percentiles are what StatWithPercentiles (xla/tsl/util/stats_calculator.h) added.
`onnxruntime_perf_test` by onnxruntime/test/perftest/performance_runner.cc and README.md of ONNX Runtime, whose older
forms are "P50 Latency is" and an average without "total". Numbers are written as C++ streams do: six digits, 1.2e+06.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

from mh_edge.flatbuffer import rule_of
from mh_edge.runtimes.placement import OpTime

MIB = 2**20

NUMBER = r"([-+]?[\d.]+(?:[eE][-+]?\d+)?)"


@dataclass(frozen=True)
class Printed:
    """One run of a benchmark binary, in milliseconds a call and bytes. mean: of `calls` calls. grown: by how much the
    process grew. process: its largest size, with the runtime in it. What is None was not printed.
    """

    mean: float
    calls: int | None = None
    p50: float | None = None
    p90: float | None = None
    p99: float | None = None
    load: float | None = None
    first: float | None = None
    grown: int | None = None
    process: int | None = None


@dataclass(frozen=True)
class Replaced:
    """A delegate took `nodes` of the `of` nodes of a graph."""

    delegate: str
    nodes: int
    of: int


@dataclass(frozen=True)
class Kernel:
    """A line of benchmark_model's table of operations. inside: a kernel of a delegate, whose time is also in that of
    the delegate's own line.
    """

    op: str
    name: str
    ms: float
    inside: bool

    @property
    def delegate(self) -> bool:
        """Whether this is a delegate's own line."""
        return "delegate" in self.op.lower()


def tflite(text: str) -> Printed | None:
    """What benchmark_model printed; None where the average of its calls is not there."""
    mean = _number(rf"Inference \(avg\): {NUMBER}", text)
    if mean is None:
        return None
    # The warm-up prints a line of its own before that of the timed calls.
    calls = re.findall(r"^(?:INFO: )?count=.*$", text, re.MULTILINE)
    line = calls[-1] if calls else ""
    count = _number(rf"count={NUMBER}", line)
    load, first = _number(rf"\bInit: {NUMBER}", text), _number(rf"First inference: {NUMBER}", text)
    median, grown = _number(rf"median={NUMBER}", line), _number(rf"Memory footprint delta.* overall={NUMBER}", text)
    return Printed(
        mean=mean / 1e3,
        calls=None if count is None else int(count),
        p50=None if median is None else median / 1e3,
        load=None if load is None else load / 1e3,
        first=None if first is None else first / 1e3,
        grown=None if grown is None else int(grown * MIB),
    )


def onnxruntime(text: str) -> Printed | None:
    """What onnxruntime_perf_test printed; None where the average of its calls is not there."""
    mean = _number(rf"Average inference time cost(?: total)?: {NUMBER} ms", text)
    mean = _number(rf"Average time cost:{NUMBER} ms", text) if mean is None else mean
    if mean is None:
        return None
    percentiles = [_number(rf"P{share} Latency(?::| is) {NUMBER} ?s", text) for share in (50, 90, 99)]
    p50, p90, p99 = (None if value is None else 1e3 * value for value in percentiles)
    load, first = (_number(rf"{what} time cost: {NUMBER}", text) for what in ("Session creation", "First inference"))
    calls = _number(rf"(?:Total inference requests: |Total iterations:){NUMBER}", text)
    process = _number(rf"Peak working set size: ?{NUMBER}", text)
    return Printed(
        mean=mean,
        calls=None if calls is None else int(calls),
        p50=p50,
        p90=p90,
        p99=p99,
        load=None if load is None else 1e3 * load,
        first=first or None,  # whole milliseconds: 0 says nothing
        process=None if process is None else int(process),
    )


def replaced(text: str) -> tuple[Replaced, ...]:
    """Which delegates took how much of the main graph, in the order in which they were asked, as TensorFlow Lite's
    runtime says on Android; one that the tool says took nothing in the end is left out.
    """
    pattern = r"Replacing (\d+) out of (\d+) node\(s\) with delegate \(([^)]*)\) node, yielding \d+ partitions(.*)"
    refused = re.findall(r"Though ([A-Z]+)\S* delegate is explicitly applied, the model graph will not be", text)
    found = [
        Replaced(name, int(nodes), int(of))
        for nodes, of, name, graph in re.findall(pattern, text)
        if "subgraph" not in graph or "subgraph 0" in graph
    ]
    return tuple(one for one in found if not any(named(one.delegate, word) for word in refused))


def refusals(text: str) -> dict[str, str]:
    """Operation -> why the GPU delegate does not take it, as it says."""
    table = text.partition("operations are not supported by GPU delegate:")[2].partition("will run on the GPU")[0]
    return dict(re.findall(r"^([A-Z][A-Z0-9_]+): (.+?)\.?$", table, re.MULTILINE))


def unknown_flags(text: str) -> str:
    """The flags that benchmark_model passed over."""
    found = re.search(r"Unconsumed cmdline flags: (.+)", text)
    return found[1].strip() if found else ""


def named(delegate: str, word: str) -> bool:
    """Whether the runtime's name of a delegate ("TfLiteGpuDelegateV2") is the tool's word ("GPU"); one that came as a
    library has any name but that of the default one.
    """
    return word.lower() in delegate.lower() or (word in ("EXTERNAL", "STABLE") and "xnnpack" not in delegate.lower())


def kernels(text: str) -> tuple[Kernel, ...]:
    """The operations of the main graph in the order of running, from the table that --enable_op_profiling prints."""
    table = text.partition("Operator-wise Profiling Info for Regular Benchmark Runs:")[2]
    return tuple(_rows(table.partition(" Run Order ")[2].splitlines()))


def _rows(lines: list[str]) -> Iterator[Kernel]:
    columns: list[str] = []
    for line in lines:
        cells = [cell.strip() for cell in line.split("\t")]
        if "[Name]" in cells:
            columns = cells
        elif columns and len(cells) != len(columns):
            return  # the table ends with an empty line
        elif columns:
            row = dict(zip(columns, cells, strict=True))
            inside = row["[Name]"].startswith("Delegate/")
            if inside or row["[Name]"].startswith("["):  # others are steps of the interpreter, such as AllocateTensors
                name = "" if inside else row["[Name]"].rpartition("]")[0].lstrip("[").partition(",")[0]
                yield Kernel(row["[node type]"], name, float(row["[avg ms]"]), inside)


def op_times(found: tuple[Kernel, ...], asked: tuple[str, ...]) -> tuple[OpTime, ...]:
    """Milliseconds of each operation. asked: the delegates that are the device; none: all of it is the phone's CPU.

    Kernels of a delegate stand for its own line, which keeps what they leave of its time.
    """
    inside = [one for one in found if one.inside]
    own = [one for one in found if one.delegate and not one.inside]
    where = own[0].op if own else "delegate"
    ours = not asked or any(named(where, word) for word in asked)
    times = [OpTime("", one.op, where, ours, one.ms) for one in inside]
    left = sum(one.ms for one in own) - sum(one.ms for one in inside)
    for one in own:
        ms = max(0.0, left) / len(own) if inside else one.ms
        times.append(OpTime(one.name, one.op, one.op, not asked or any(named(one.op, word) for word in asked), ms))
    plain = [one for one in found if not one.inside and not one.delegate]
    return (*times, *(OpTime(one.name, one.op, "CPU", not asked, one.ms, rule_of(one.name)) for one in plain))


def _number(pattern: str, text: str) -> float | None:
    """The first number that the pattern finds, where it is one."""
    found = re.search(pattern, text)
    value = float(found[1]) if found else math.nan
    return value if math.isfinite(value) else None
