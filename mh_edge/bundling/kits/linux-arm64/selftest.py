"""Whether the models of this kit give their golden numbers on this machine.

    python selftest.py [--runtime NAME] [--model NAME] [--threads N] [--json]

Needs numpy, and what runs the models: onnxruntime for .onnx; ai-edge-litert or tflite-runtime for .tflite. Every file
is compared with its size and SHA-256 first. Then each model runs its golden cases twice, in a process of its own. An
output is right where |got - expected| <= allowed for each of its numbers, with NaN and infinity in the same places.
Exit code 0: all models that were asked for are right. 1: something is not; a sentence says what.
"""

# ruff: noqa: B905 - Python 3.9 knows no zip(strict=)

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # the kit stays as it is

KIT = Path(__file__).resolve().parent
sys.path.insert(0, str(KIT))  # for sample.py, also under python -I

WARM_CALLS, CALLS, SECONDS = 3, 200, 1.0
"""How often a model is timed: until one of the last two is reached."""

RUNTIMES = {"onnxruntime": "onnx", "ai-edge-litert": "tflite", "tflite-runtime": "tflite"}
"""Each with the format that it takes."""

CORES = {"0xd03": "Cortex-A53", "0xd08": "Cortex-A72", "0xd0b": "Cortex-A76"}
"""Names of what /proc/cpuinfo numbers: the cores of Raspberry Pi 3, 4 and 5."""

FEATURES = {"asimddp": "dot product", "asimdhp": "float16", "i8mm": "int8 matrices", "sve": "SVE"}
"""What ARM kernels are chosen by: other ones, other roundings."""


class Failure(Exception):  # noqa: N818 - it is the verdict that it names
    """A sentence for the reader."""


def read_kit() -> dict:
    """bundle.json."""
    try:
        text = (KIT / "bundle.json").read_bytes().decode("utf-8")
        check_seal(text)
        kit = json.loads(text)
        check_files(kit["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure(f"bundle.json cannot be read ({error}): copy the kit again.") from None
    return kit


def check_seal(text: str) -> None:
    """Raise unless the last entry of bundle.json is the SHA-256 of the text without it."""
    before, _, seal = text.rpartition(',\n "sha256": "')
    if seal != hashlib.sha256((before + "\n}").encode()).hexdigest() + '"\n}\n':
        raise Failure("bundle.json has changed since it was packed: copy the kit again.")


def check_files(files: dict) -> None:
    """Raise for the first file that is not the one that was packed."""
    for name, told in files.items():
        path = (KIT / name).resolve()
        if KIT not in path.parents:
            raise Failure(f"{name} lies outside of the kit.")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise Failure(f"{name} cannot be read ({error.strerror}): copy the kit again.") from None
        if len(content) != told["bytes"]:
            raise Failure(f"{name} has {len(content)} bytes and had {told['bytes']}: copy the kit again.")
        if hashlib.sha256(content).hexdigest() != told["sha256"]:
            raise Failure(f"{name} has changed since it was packed: its SHA-256 is another. Copy the kit again.")


def array(entry: dict, content: bytes):
    """A golden array: little-endian, the last axis first."""
    import numpy as np

    dtype = np.dtype(entry["dtype"])
    count = math.prod(entry["shape"])
    return np.frombuffer(content, dtype.newbyteorder("<"), count, entry["offset"]).reshape(entry["shape"]).astype(dtype)


def compare(case: dict, got: dict, content: bytes) -> dict:
    """The number of a case that is nearest to what is allowed, or furthest beyond; share: error / allowed."""
    import numpy as np

    worst = {"case": case["name"], "output": "", "index": [], "expected": 0.0, "got": 0.0, "error": 0.0, "share": 0.0}
    worst["allowed"] = 0.0
    for name, entry in case["outputs"].items():
        found, expected = got.get(name), array(entry, content)
        if found is None or (found.dtype, found.shape) != (expected.dtype, expected.shape):
            kind = "missing" if found is None else f"{found.dtype} {found.shape}"
            raise Failure(f"{case['name']}: the output {name} is {kind}, expected {expected.dtype} {expected.shape}.")
        if not expected.size:
            continue
        a, b = found.astype("float64"), expected.astype("float64")
        with np.errstate(invalid="ignore"):
            off = np.abs(a - b)
        if expected.dtype.kind in "iu":  # float64 does not hold all of them
            off = np.maximum(off, 1.0)
        same = (found == expected) | (np.isnan(a) & np.isnan(b))
        off = np.where(same, 0.0, np.where(np.isfinite(off), off, np.inf))
        index = np.unravel_index(int(np.argmax(off)), off.shape)
        error, allowed = float(off[index]), float(entry["allowed"])
        share = error / allowed if allowed else (math.inf if error else 0.0)
        if share >= worst["share"]:
            worst.update(output=name, index=[int(one) for one in index], expected=float(b[index]), got=float(a[index]))
            worst.update(error=error, allowed=allowed, share=share)
    return worst


def prove(entry: dict, runtime: str, threads: int) -> dict:
    """Run the golden cases of a model, all of them twice: what one call leaves behind for the next would be seen. Then
    time the first.
    """
    from sample import RUNTIMES as MODULES
    from sample import Model

    release = version(runtime, MODULES[runtime][1])
    content = (KIT / entry["golden"]["path"]).read_bytes()
    cases = entry["golden"]["cases"]
    try:
        model = Model(entry["name"], runtime, threads)
    except Exception as error:  # noqa: BLE001 - each runtime has classes of its own
        raise Failure(unopened(entry, runtime, release, error)) from None
    worst = None
    for case in cases + cases:
        try:
            got = model({name: array(one, content) for name, one in case["inputs"].items()})
        except Exception as error:  # noqa: BLE001
            raise Failure(f"{case['name']}: {runtime} cannot run it: {first_line(error)}") from None
        found = compare(case, got, content)
        worst = found if worst is None or found["share"] > worst["share"] else worst
    feeds = {name: array(one, content) for name, one in cases[0]["inputs"].items()}
    times, end = [], time.perf_counter() + SECONDS
    for _ in range(WARM_CALLS):
        model(feeds)
    while len(times) < CALLS and (not times or time.perf_counter() < end):
        start = time.perf_counter()
        model(feeds)
        times.append(time.perf_counter() - start)
    shapes = {name: one["shape"] for name, one in cases[0]["inputs"].items()}
    return {
        "version": release,
        "cases": len(cases),
        "worst": worst,
        "passed": worst["share"] <= 1,
        "latency": {"median_ms": statistics.median(times) * 1e3, "calls": len(times), "inputs": shapes},
    }


def unopened(entry: dict, runtime: str, release: str, error: Exception) -> str:
    """Why a runtime does not open a model, and what would."""
    needed = entry["details"].get("onnxruntime")
    if needed and numbers(release) < numbers(needed):
        python = ".".join(map(str, sys.version_info[:2]))
        return (
            f"opset {entry['opset']} needs onnxruntime {needed} or newer, and {release} is installed: pip install "
            f'"onnxruntime>={needed}"; where Python {python} has none, take a newer Python, or the file that '
            "mh-edge export --opset 17 writes."
        )
    return f"{runtime} {release} cannot open it: {first_line(error)}"


def numbers(release: str) -> list:
    """`1.19.2` -> [1, 19, 2]."""
    return [int(one) for one in release.split(".") if one.isdigit()]


def first_line(error: Exception) -> str:
    """Its text, on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def version(runtime: str, module: str) -> str:
    """Of an installed runtime."""
    try:
        return importlib.metadata.version(runtime)
    except importlib.metadata.PackageNotFoundError:  # of another package's making: onnxruntime-gpu, Debian's
        return str(vars(importlib.import_module(module)).get("__version__", ""))


def in_child(pipe, said: str, entry: dict, asked: str | None, threads: int) -> None:
    """`prove`, in a child: what runtimes print goes to a file, and if one crashes, the others are still tested."""
    with open(said, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        runtime = runtime_for(entry, asked)
        pipe.send({"runtime": runtime})
        pipe.send(prove(entry, runtime, threads))
    except Failure as failure:
        pipe.send({"reason": str(failure)})
    except Exception as error:  # noqa: BLE001 - whatever it is, the reader is told
        pipe.send({"reason": f"{type(error).__name__}: {first_line(error)}"})


def proven(entry: dict, asked: str | None, threads: int) -> dict:
    """The result of a model. Nothing that starts threads is imported here: a fork would not take them along."""
    children = multiprocessing.get_context("fork")
    ours, theirs = children.Pipe(duplex=False)
    result = {"name": entry["name"], "path": entry["path"], "runtime": "", "passed": False}
    with tempfile.TemporaryDirectory() as folder:
        child = children.Process(target=in_child, args=(theirs, str(Path(folder, "said")), entry, asked, threads))
        child.start()
        theirs.close()
        while not result.keys() & {"reason", "worst"}:
            try:
                result.update(ours.recv())
            except EOFError:
                child.join()
                result["reason"] = crashed(result["runtime"], child.exitcode)
        child.join()
    return result


def crashed(runtime: str, code: int) -> str:
    """What to say of a child that left no result."""
    how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    if runtime != "tflite-runtime":
        return f"{runtime} crashed ({how}), perhaps for want of memory."
    return (
        f"{runtime} crashed ({how}). Integer weights with a scale for each channel do that to its last release: pip "
        "install ai-edge-litert, or quantize with mh-edge quantize --per-tensor."
    )


def runtime_for(entry: dict, asked: str | None) -> str:
    """The runtime that a model is tested on. Raises Failure with the line that installs one."""
    from sample import installed

    found = installed(entry["format"])
    wanted = [name for name, kind in RUNTIMES.items() if kind == entry["format"] and asked in (None, name)]
    runtime = next((name for name in wanted if name in found), None)
    if runtime is None:
        needed = entry["details"].get("onnxruntime")
        package = f'"onnxruntime>={needed}"' if needed else wanted[0]
        raise Failure(f"{' or '.join(wanted)} is not installed: pip install {package}")
    numpy = version("numpy", "numpy")
    if runtime == "tflite-runtime" and numbers(numpy)[0] > 1:
        raise Failure(f'tflite-runtime was built for numpy 1, and {numpy} is installed: pip install "numpy<2"')
    return runtime


def machine() -> dict:
    """What this machine says of itself."""
    told = {}
    for line in read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        told.setdefault(key.strip(), value.strip())
    system = dict(line.split("=", 1) for line in read("/etc/os-release").splitlines() if "=" in line)
    core = told.get("model name") or CORES.get(told.get("CPU part", ""), told.get("CPU part", "unknown"))
    return {
        "model": read("/proc/device-tree/model").strip("\0\n") or platform.node(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "core": CORES.get(told.get("CPU part", ""), core),
        "features": [name for flag, name in FEATURES.items() if flag in told.get("Features", "").split()],
        "system": system.get("PRETTY_NAME", platform.system()).strip('"'),
        "python": platform.python_version(),
        "numpy": version("numpy", "numpy"),
    }


def read(path: str) -> str:
    """The text of a file; empty where there is none."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def run(arguments: argparse.Namespace) -> dict:
    """All of it -> what --json prints."""
    kit = read_kit()
    if importlib.util.find_spec("numpy") is None:
        raise Failure("numpy is not installed: pip install numpy")
    names = [entry["name"] for entry in kit["artifacts"]]
    if arguments.model not in (None, *names):
        raise Failure(f"{arguments.model} is not in this kit: {', '.join(names)}.")
    kind = RUNTIMES.get(arguments.runtime)
    results = [
        proven(entry, arguments.runtime, arguments.threads)
        for entry in kit["artifacts"]
        if arguments.model in (None, entry["name"]) and kind in (None, entry["format"])
    ]
    if not results:
        raise Failure(f"{arguments.runtime} runs none of the models that were asked for.")
    return {
        "passed": all(one["passed"] for one in results),
        "machine": machine(),
        "files": len(kit["files"]),
        "threads": arguments.threads,
        "artifacts": results,
        "left": [name for name in names if name not in [one["name"] for one in results]],
    }


def show(found: dict) -> None:
    """For people."""
    here = found["machine"]
    features = f" ({', '.join(here['features'])})" if here["features"] else ""
    print(f"{here['model']}: {here['architecture']}, {here['cores']} x {here['core']}{features}")
    print(f"{here['system']}, Python {here['python']}, numpy {here['numpy']}")
    print(f"{found['files']} files, each as it was packed\n")
    rows = [("", "model", "runtime", "cases", "worst error", "allowed", "median")]
    notes = []
    for one in found["artifacts"]:
        verdict = "PASS" if one["passed"] else "FAIL"
        if "worst" not in one:
            rows.append((verdict, one["path"], one.get("runtime", ""), "", "", "", ""))
            notes.append(f"{one['name']}: {one['reason']}")
            continue
        worst = one["worst"]
        numbers = (f"{worst['error']:.2g}", f"{worst['allowed']:.2g}", f"{one['latency']['median_ms']:.3g} ms")
        rows.append((verdict, one["path"], f"{one['runtime']} {one['version']}", f"{one['cases']} x 2", *numbers))
        place = f"{worst['output']}[{', '.join(map(str, worst['index']))}]"
        notes.append(
            f"{one['name']}: worst where {worst['case']!r} gives {place} = {worst['got']:g}, expected "
            f"{worst['expected']:g}"
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())
    print("", *notes, sep="\n")
    if any("latency" in one for one in found["artifacts"]):
        threads = "1 thread" if found["threads"] == 1 else f"{found['threads']} threads"
        print(f"Times: calls with the first golden case, {threads}.")
    if found["left"]:
        print(f"Not tested, as {'they were' if len(found['left']) > 1 else 'it was'} not asked for: ", end="")
        print(", ".join(found["left"]))
    right = sum(one["passed"] for one in found["artifacts"])
    print(f"{'PASS' if found['passed'] else 'FAIL'}: {right} of {len(found['artifacts'])} models are right here.")


def plain(value):
    """JSON knows no NaN and no infinity: they become text."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Whether the models of this kit give their golden numbers here.")
    parser.add_argument("--runtime", choices=tuple(RUNTIMES), help="the first that is installed")
    parser.add_argument("--model", help="test this one alone")
    parser.add_argument("--threads", type=int, default=1, help="for the computations of a model [1]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.threads < 1:
        parser.error(f"--threads {arguments.threads}: it takes at least 1.")
    try:
        found = run(arguments)
    except Failure as failure:
        found = {"passed": False, "reason": str(failure)}
    if arguments.json:
        print(json.dumps(plain(found), allow_nan=False))
    elif "reason" in found:
        print(f"FAIL: {found['reason']}", file=sys.stderr)
    else:
        show(found)
    return 0 if found["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
