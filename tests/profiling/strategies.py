"""Profiles that hypothesis draws: every combination of what may be missing, odd, or no number."""

from __future__ import annotations

from hypothesis import strategies as st

from mh_edge.profiling.result import Agreement, Failure, Latency, Profile, Ratio, Row
from mh_edge.runtimes.placement import Fallback, OpTime, Placement

NUMBERS = st.one_of(st.floats(), st.floats(1e-4, 1e4), st.integers(0, 10**6).map(float))
TEXTS = st.text(max_size=12)
LATENCIES = st.builds(
    Latency,
    p50=NUMBERS,
    p90=st.none() | NUMBERS,
    p99=st.none() | NUMBERS,
    interval=st.tuples(NUMBERS, NUMBERS),
    quantiles=st.lists(NUMBERS, max_size=5).map(lambda values: tuple(sorted(values * 20))),
    calls=st.integers(0, 9999),
    steady=st.none() | st.booleans(),
)
OPS = st.builds(OpTime, node=TEXTS, op=TEXTS, where=TEXTS, on_device=st.booleans(), ms=NUMBERS, rule=TEXTS)
FALLBACKS = st.builds(
    Fallback, op=TEXTS, count=st.integers(0, 5), nodes=st.lists(TEXTS, max_size=2).map(tuple), where=TEXTS, reason=TEXTS
)
PLACEMENTS = st.builds(
    Placement,
    nodes=st.integers(0, 9),
    on_device=st.integers(0, 9),
    partitions=st.integers(0, 99),
    fallbacks=st.lists(FALLBACKS, max_size=2).map(tuple),
    proof=TEXTS,
)
METRICS = st.dictionaries(
    st.sampled_from(["accuracy", "accuracy_float", "top1_agreement", "sqnr_db", "metric", "share", "on"]),
    st.none() | NUMBERS | TEXTS | st.booleans(),
)
ROWS = st.builds(
    Row,
    artifact=TEXTS,
    device=TEXTS,
    runtime=TEXTS,
    bytes=st.none() | st.integers(0),
    batch=st.none() | st.integers(1, 64),
    latency=st.none() | LATENCIES,
    mean_ms=st.none() | st.floats(1e-4, 1e4),
    ratio=st.none() | st.builds(Ratio, ratio=NUMBERS, interval=st.tuples(NUMBERS, NUMBERS), differs=st.booleans()),
    load_ms=st.none() | NUMBERS,
    first_ms=st.none() | NUMBERS,
    memory=st.none() | st.integers(0),
    placement=st.none() | PLACEMENTS,
    time_share=st.none() | st.floats(0, 1),
    agreement=st.none()
    | st.builds(Agreement, equal=st.none() | st.booleans(), reference=TEXTS, error=st.none() | NUMBERS, why=TEXTS),
    ops=st.lists(OPS, max_size=3).map(tuple),
    quantized=st.none() | st.fixed_dictionaries({"scheme": TEXTS, "metrics": st.none() | METRICS}),
    failure=st.none() | st.builds(Failure, kind=TEXTS, message=TEXTS, hint=TEXTS, exit_code=st.integers(1, 6)),
    notes=st.lists(TEXTS, max_size=2).map(tuple),
)
PROFILES = st.builds(
    Profile,
    rows=st.lists(ROWS, max_size=4).map(tuple),
    noise=st.none() | NUMBERS,
    machine=st.dictionaries(TEXTS, TEXTS, max_size=2),
    sizes=st.dictionaries(TEXTS, st.integers(1, 9), max_size=2),
    threads=st.none() | st.integers(1, 8),
    feeds=TEXTS,
    openings=st.integers(0, 9),
)
