"""What benchmark binaries print, in the wording of their sources (benchmark_model.cc, stats_calculator.cc, subgraph.cc;
performance_runner.cc). Written from those, not recorded on a device.
"""

from __future__ import annotations

TFLITE = """INFO: STARTING!
INFO: Log parameter values verbosely: [0]
INFO: Graph: [/data/local/tmp/mh-edge-0/model.tflite]
INFO: Loaded model /data/local/tmp/mh-edge-0/model.tflite
INFO: Initialized TensorFlow Lite runtime.
{delegates}
INFO: The input model file size (MB): 3.5
INFO: Initialized session in 38.467ms.
INFO: Running benchmark for at least 1 iterations and at least 0.5 seconds but terminate if exceeding 300 seconds.
INFO: count=7 first=83235 curr=81350 min=77385 max=88213 avg=81732 std=1929{warm}

INFO: Running benchmark for at least 50 iterations and at least 1 seconds but terminate if exceeding 300 seconds.
INFO: count=50 first=79449 curr=81350 min=77385 max=1.08213e+06 avg=79760.9 std=1929{median}

INFO: Inference timings in us: Init: 38467, First inference: 83235, Warmup (avg): 81732, Inference (avg): 79760.9
INFO: Note: as the benchmark tool itself affects memory footprint, the following is only APPROXIMATE to the actual \
memory footprint of the model at runtime. Take the information at your discretion.
INFO: Memory footprint delta from the start of the tool (MB): init=4.5 overall=8.25
"""

PERCENTILES = {"warm": " p5=78000 median=82000 p95=88000", "median": " p5=78000 median=79500 p95=85000"}

XNNPACK = """INFO: Created TensorFlow Lite XNNPACK delegate for CPU.
VERBOSE: Replacing 5 out of 6 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 3 partitions for subgraph 0.
VERBOSE: Replacing 2 out of 9 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for subgraph 1.
"""

GPU = """INFO: Created TensorFlow Lite delegate for GPU.
ERROR: Following operations are not supported by GPU delegate:
CUMSUM: Operation is not supported.
4 operations will run on the GPU, and the remaining 2 operations will run on the CPU.
INFO: GPU delegate created.
VERBOSE: Replacing 4 out of 6 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions for subgraph 0.
INFO: Explicitly applied GPU delegate, and the model graph will be partially executed by the delegate w/ 2 delegate \
kernels.
VERBOSE: Replacing 1 out of 4 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions for subgraph 0.
"""

NNAPI_REFUSED = """INFO: NNAPI accelerators available: [nnapi-reference]
INFO: NNAPI delegate created.
VERBOSE: Replacing 6 out of 6 node(s) with delegate (TfLiteNnapiDelegate) node, yielding 1 partitions for subgraph 0.
INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed by the delegate."""

_HEAD = "[node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]"
_OLD_HEAD = "[node type]\t  [start]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]"


def table(*rows: tuple[str, float, str], old: bool = False) -> str:
    """The tables of --enable_op_profiling; rows: type, milliseconds, name."""
    start = "\t    0.000" if old else ""
    lines = [
        f"\t{kind:>40}{start}\t    9.999\t{ms:9.3f}\t 10.000%\t 10.000%\t     0.000\t        1\t{name}"
        for kind, ms, name in rows
    ]
    head = "\n".join(["\t" + (_OLD_HEAD if old else _HEAD), *lines])
    other = "\t".join(
        ["", "ModifyGraphWithDelegate", "1.0", "1.0", "100%", "100%", "0", "1", "ModifyGraphWithDelegate/0"]
    )
    bar = "=" * 30
    return (
        f"INFO: Profiling Info for Benchmark Initialization:\n{bar} Run Order {bar}\n\t{_HEAD}\n{other}\n\n"
        f"INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n{bar} Run Order {bar}\n{head}\n\n"
        f"{bar} Top by Computation Time {bar}\n{head}\n\nNumber of nodes executed: {len(rows)}\n"
    )


ONNXRUNTIME = """Setting intra_op_num_threads to 2
Session creation time cost: 0.0508382 s
First inference time cost: {first} ms
Total inference time cost: 1.9918 s
Total inference requests: 100
Average inference time cost{total}: 19.918 ms
Total inference run time: 1.99202 s
Number of inferences per second: 50.2002
Avg CPU usage: 12 %
Peak working set size: 109531136 bytes
Avg CPU usage:12
Peak working set size:109531136
Runs:100
Min Latency: 9.97812e-05 s
Max Latency: 0.0202704 s
P50 Latency: 0.0199047 s
P90 Latency: 0.0200251 s
P95 Latency: 0.0201534 s
P99 Latency: 0.0202704 s
P999 Latency: 0.0202704 s
"""
