"""Profiles made by hand, for tests of what is shown of them; no device is asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from mh_edge.profiling.result import QUANTILES, Agreement, Failure, Latency, Profile, Ratio, Row
from mh_edge.runtimes.placement import Fallback, OpTime, Placement

MACHINE = {"processor": "Intel Xeon, 2 cores", "system": "Linux 6.1", "mh-edge": "0.1.0", "onnxruntime": "1.31.1"}

HOSTILE = "models/</title><script>alert(1)</script>&amp;\"'\u202egpj.\x00\udcff模型ß" + "ä" * 150 + ".onnx"
"""A name that wants to be markup, turns the text around, holds what UTF-8 cannot, and is long."""

WRONG = (
    "the numbers of 'out/t0.tflite' on 'litert-gpu' are wrong: logits[0, 3] is 0.125, expected 2.25 as 'xnnpack' gives "
    "it; the difference is 0.31 of the largest number, and 0.001 is allowed."
)


def latency(median: float, spread: float = 0.04, *, calls: int = 3000, slow: float = 0.02, seed: int = 0) -> Latency:
    """Most calls near the median, some of them (`slow`, a share) half as long again."""
    rng = np.random.default_rng(seed)
    times = median * np.exp(spread * rng.standard_normal(calls)) * np.where(rng.random(calls) < slow, 1.5, 1.0)
    quantiles = tuple(np.percentile(times, np.linspace(0, 100, QUANTILES)).tolist())
    return Latency(
        p50=quantiles[50],
        p90=quantiles[90] if calls >= 20 else None,
        p99=quantiles[99] if calls >= 200 else None,
        interval=(0.985 * quantiles[50], 1.02 * quantiles[50]),
        quantiles=quantiles,
        calls=calls,
        steady=True,
    )


def quantized(scheme: str, accuracy: float | None, agreement: float | None, sqnr: float) -> dict[str, Any]:
    return {
        "scheme": scheme,
        "metrics": {
            "on": "the evaluation data eval.npz, 4000 samples",
            "samples": 4000,
            "metric": None if accuracy is None else "accuracy",
            "accuracy_float": None if accuracy is None else 0.93525,
            "accuracy": accuracy,
            "share": True,
            "top1_agreement": agreement,
            "sqnr_db": sqnr,
        },
        "gate": None,
        "kept_float": [],
    }


def whole(nodes: int) -> Placement:
    return Placement(nodes, nodes, 1, (), "ONNX Runtime's record of node assignment")


def ops(times: Mapping[str, tuple[float, str]], where: str = "CPUExecutionProvider") -> tuple[OpTime, ...]:
    """op or op/number -> (ms, rule)."""
    return tuple(
        OpTime(f"model/{name}", name.partition("/")[0], where, True, ms, rule) for name, (ms, rule) in times.items()
    )


FLOAT_OPS = ops(
    {
        "Attention/0": (0.031, "MultiHeadAttention"),
        "Attention/1": (0.029, "MultiHeadAttention"),
        "MatMul/0": (0.011, "Dense"),
        "MatMul/1": (0.013, "Dense"),
        "Gemm": (0.006, "Dense"),
        "LayerNormalization/0": (0.004, "LayerNormalization"),
        "LayerNormalization/1": (0.004, "LayerNormalization"),
        "Gelu": (0.005, ""),
        "Add": (0.002, ""),
        "ReduceMean": (0.002, ""),
        "Cast": (0.0004, ""),
        "Unsqueeze": (0.0002, ""),
    }
)
INT8_OPS = ops(
    {
        "Attention/0": (0.030, "MultiHeadAttention"),
        "Attention/1": (0.030, "MultiHeadAttention"),
        "DynamicQuantizeMatMul/0": (0.004, "Dense"),
        "DynamicQuantizeMatMul/1": (0.005, "Dense"),
        "LayerNormalization/0": (0.004, "LayerNormalization"),
        "QuantizeLinear": (0.001, ""),
    }
)

TFLITE_OPS = ops(
    {
        "FULLY_CONNECTED/0": (0.0301, "mh_edge.MultiHeadAttention"),
        "FULLY_CONNECTED/1": (0.0202, "mh_edge.Dense"),
        "SOFTMAX": (0.0113, "mh_edge.MultiHeadAttention"),
        "STRIDED_SLICE": (0.0023, ""),
    },
    "XNNPACK",
)


def row(artifact: str = "out/t0.onnx", device: str = "cpu", median: float = 0.108, **changes: Any) -> Row:
    """One that went well."""
    made = Row(
        artifact=artifact,
        device=device,
        runtime="ONNX Runtime 1.31.1" if artifact.endswith("onnx") else "LiteRT 2.3.0",
        bytes=312_456,
        batch=1,
        latency=latency(median, seed=len(artifact)),
        ratio=Ratio(median / 0.108, (0.98 * median / 0.108, 1.02 * median / 0.108), abs(median - 0.108) > 0.01),
        load_ms=12.4,
        first_ms=0.61,
        memory=9_400_000,
        placement=whole(22),
        agreement=Agreement(True, "cpu", 3.1e-7, 1e-5, "logits[0, 3]", 1.25, 1.2500004, feeds=8),
    )
    return replace(made, **changes)


def profile(*rows: Row, noise: float | None = 1.03, **changes: Any) -> Profile:
    made = Profile(rows, noise, MACHINE, {"batch": 1}, 1, "random numbers (seed 0)", 5)
    return replace(made, **changes)


def usual() -> Profile:
    """A float file and its quantized ones on one device, all well."""
    schemes = {
        "int8": (0.077, 0.9355, 0.9978, 42.2),
        "int8-dynamic": (0.084, 0.9347, 0.9969, 42.9),
        "int8-a16": (0.190, 0.9352, 0.9985, 44.6),
        "fp16": (0.109, 0.93525, 0.9999, 68.3),
        "int4": (0.098, 0.9214, 0.9812, 24.6),
    }
    rows = [row(ratio=None, ops=FLOAT_OPS, agreement=None)]
    rows += [
        row(
            f"out/t0.{name}.onnx",
            median=ms,
            bytes=int(98_000 + 1e5 * ms),
            quantized=quantized(name, *lost),
            ops=INT8_OPS,
        )
        for name, (ms, *lost) in schemes.items()
    ]
    return profile(*rows)


def troubled() -> Profile:
    """Several devices: one right, one slow, one that fell back in part, one wrong, some that are not here."""
    fallbacks = (
        Fallback("CumSum", 2, ("heads/CumSum_1", "heads/CumSum_2"), "CPUExecutionProvider", "no kernel for int64"),
        Fallback(
            "Attention",
            4,
            tuple(f"attention_{n}/Attention" for n in range(4)),
            "CPUExecutionProvider",
            "opset 23 is newer than the plugin knows",
        ),
        Fallback("Where", 9, (), "CPUExecutionProvider"),
    )
    mixed = tuple(
        replace(one, where="OpenVINO", on_device=one.op != "Attention")
        if one.op != "Attention"
        else replace(one, on_device=False)
        for one in FLOAT_OPS
    )
    return profile(
        row(ratio=None, agreement=None, ops=FLOAT_OPS),
        row(
            "out/t0.onnx",
            "openvino",
            0.061,
            placement=Placement(54, 39, 5, fallbacks, "OpenVINO's compiled model"),
            time_share=0.41,
            ops=mixed,
        ),
        row("out/t0.tflite", "xnnpack", 0.110, ops=TFLITE_OPS, first_ms=None, memory=None),
        row(
            "out/t0.tflite",
            "litert-gpu",
            latency=None,
            ratio=None,
            load_ms=None,
            first_ms=None,
            memory=None,
            failure=Failure("not_equal", WRONG, "It is not timed.", 5),
            agreement=Agreement(False, "xnnpack", 0.31, 1e-3, "logits[0, 3]", 2.25, 0.125, 8),
            placement=None,
        ),
        row(
            "out/t0.tflite",
            "litert-reference",
            1.9,
            latency=replace(latency(1.9, 0.2, calls=60), steady=False),
            notes=("its kernels are made to be read, not to be fast",),
        ),
        Row(
            "out/t0.onnx",
            "cuda",
            failure=Failure(
                "unavailable",
                "cuda does not work here: this machine has no NVIDIA driver (libcuda.so.1 is missing).",
                "Install one, then: pip install 'mh-edge[cuda]'",
                6,
            ),
        ),
        Row(
            "out/t0.onnx",
            "coreml",
            failure=Failure("unavailable", "the onnxruntime installed here is built without CoreML.", "", 6),
        ),
        noise=1.11,
    )


def crowd(count: int = 40) -> Profile:
    """As many rows as anyone would ask for, with long names."""
    rng = np.random.default_rng(7)
    rows = [
        row(
            f"runs/11-{n % 28 + 1:02}/transformer-encoder-with-parallel-heads-v{n}.{'onnx' if n % 3 else 'tflite'}",
            ("cpu", "openvino", "webgpu", "xnnpack")[n % 4],
            float(0.1 * 1.15**n),
            quantized=quantized("int8", 0.9 + 0.04 * float(rng.random()), 0.99, 40.0) if n % 2 else None,
            ops=FLOAT_OPS if n % 5 == 0 else (),
        )
        for n in range(count)
    ]
    return profile(*rows)


def hostile() -> Profile:
    """Names and messages that no page should believe, numbers that are none."""
    nan, inf = math.nan, math.inf
    odd = Latency(0.2, nan, inf, (nan, inf), (nan, 0.1, inf, 0.2, -1.0, 0.0), 6, False)
    return profile(
        row(
            HOSTILE,
            HOSTILE,
            runtime=HOSTILE,
            notes=(HOSTILE,),
            ratio=Ratio(nan, (nan, inf), True),
            ops=(
                OpTime(HOSTILE, HOSTILE, HOSTILE, False, nan, HOSTILE),
                OpTime("", HOSTILE, HOSTILE, False, 1.0, HOSTILE),
            ),
            placement=Placement(3, 1, 1, (Fallback(HOSTILE, 2, (HOSTILE, ""), HOSTILE, HOSTILE),), HOSTILE),
        ),
        row(
            "a.onnx",
            latency=odd,
            quantized={
                "scheme": HOSTILE,
                "metrics": {"accuracy": "nan", "sqnr_db": "inf", "top1_agreement": True, "on": HOSTILE},
            },
        ),
        row("b.onnx", latency=replace(odd, p50=nan)),
        Row(HOSTILE + "2", "cpu", failure=Failure("input", HOSTILE, HOSTILE, 3)),
        noise=nan,
        machine={HOSTILE: HOSTILE},
        feeds=HOSTILE,
    )


def empty() -> Profile:
    """Nothing is known of anything."""
    return profile(Row("t0.onnx", "cpu"), noise=None, machine={}, sizes={}, threads=None, feeds="", openings=0)


def lone() -> Profile:
    return profile(row(ratio=None, agreement=None, latency=latency(0.108, calls=12)))


def lost() -> Profile:
    """Every row failed."""
    failure = Failure("input", "t0.onnx is damaged.", "Write it again.", 3)
    return profile(Row("t0.onnx", "cpu", failure=failure), Row("t0.onnx", "xnnpack-ort", failure=failure), noise=None)


EVERY = {
    "usual": usual, "troubled": troubled, "crowd": crowd, "hostile": hostile, "empty": empty, "lone": lone,
    "lost": lost, "none": profile,
}  # fmt: skip
"""Name -> what makes it."""
