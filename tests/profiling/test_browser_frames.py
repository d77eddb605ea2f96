"""What is believed of what a browser sends, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mh_edge.jsontext import dumps
from mh_edge.openings import OPENINGS
from mh_edge.profiling.browser.frames import Checked, Expected, Timed
from mh_edge.profiling.browser.rows import told_by
from mh_edge.profiling.browser.server import RefusedError
from profiling.browsers import checked, frame, timed
from profiling.phones import X

RUNS = [{"y": X * X}, {"y": X * X}]
ROWS = [Expected(2, 1, 1), Expected(2, 1, 1)]
CHECKED, ARRAYS = checked(0, RUNS)
TIMED, AGAIN = timed(0, RUNS[0])


def opening(**other: Any) -> dict[str, Any]:
    return {"openings": [TIMED["openings"][0] | other] * OPENINGS}


def output(**other: Any) -> dict[str, Any]:
    return {"outputs": [{"y": CHECKED["outputs"][0]["y"] | other}] * 2}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"row": 2}, "'row' of the JSON is no whole number from 0 to 1"),
        ({"row": -1}, "'row'"),
        ({"row": True}, "'row'"),
        ({"row": 0.0}, "'row'"),
        ({"row": None}, "'row'"),
        ({"row": "0"}, "'row'"),
        ({"absent": 1}, "'absent' of the JSON is no text"),
        ({"runtime": ["x"]}, "'runtime'"),
        ({"threads": 0}, "'threads'"),
        ({"threads": 10**30}, "'threads'"),
        ({"placement": []}, "'placement' is no object"),
        ({"placement": {"nodes": 1, "on_device": 2, "fallbacks": []}}, "'on_device'"),
        ({"placement": {"nodes": 1, "on_device": 1}}, "'fallbacks' of 'placement' is no list"),
        ({"placement": {"nodes": 1, "fallbacks": [{"op": "x", "count": 0, "nodes": [], "where": ""}]}}, "'count'"),
        ({"placement": {"nodes": 1, "fallbacks": [{"op": "x", "count": 1, "nodes": [1], "where": ""}]}}, "'nodes'"),
        ({"placement": {"nodes": 1, "whole": "yes", "fallbacks": []}}, "'whole'"),
        ({"outputs": None}, "'outputs' of the JSON is no list of 2 to 2"),
        ({"outputs": [{}]}, "'outputs' of the JSON is no list of 2 to 2"),
        ({"outputs": [{}, {}]}, "16 bytes follow its arrays"),
        ({"outputs": [{"y": {}, "z": {}}, {}]}, "names more than 1 outputs"),
        (output(dtype="object"), "'dtype' of outputs[0]['y'] is none of bool"),
        (output(dtype="<U4"), "'dtype'"),
        (output(dtype="V8"), "'dtype'"),
        (output(dtype=None), "'dtype'"),
        (output(shape=[3]), "the numbers of outputs[1]['y'] are missing"),
        (output(shape=[-2]), "is no shape"),
        (output(shape=[2.0]), "is no shape"),
        (output(shape=[1 << 40]), "is no shape"),
        (output(shape=[(1 << 31) - 1] * 16), "beyond any output"),
        (output(shape=[0, *[(1 << 31) - 1] * 15]), "beyond any output"),
        (output(shape=[1] * 17), "is no list of 0 to 16"),
        (output(shape=[1]), "8 bytes follow its arrays"),
    ],
)
def test_what_a_browser_may_not_say_before(other: dict[str, Any], words: str) -> None:
    assert Checked.read(frame(CHECKED, ARRAYS), ROWS).row == 0
    with pytest.raises(RefusedError) as refused:
        Checked.read(frame(CHECKED | other, ARRAYS), ROWS)
    assert words in refused.value.why
    assert refused.value.why.startswith("This is not what the page is to send: ")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"openings": []}, "is no list of 5 to 5"),
        ({"openings": [1] * OPENINGS}, "openings[0] is no object"),
        (opening(load_ms=0), "'load_ms' of openings[0] is no time"),
        (opening(load_ms=-1.0), "'load_ms'"),
        (opening(load_ms=1e300), "'load_ms'"),
        (opening(load_ms=10**400), "'load_ms'"),
        (opening(first_ms="1"), "'first_ms'"),
        (opening(ms=[]), "'ms' of openings[0] is no list of 1 to 20000"),
        (opening(ms=[1.0, 0.0]), "a number of 'ms'"),
        (opening(ms=[1e-300]), "a number of 'ms'"),
        (opening(ms=[True]), "a number of 'ms'"),
        (opening(ms=[None]), "a number of 'ms'"),
        (opening(ms=[1.0] * 4001), "more than 20000 times"),
        (opening(control_ms=[0]), "a number of 'control_ms'"),
        ({"group": 0}, "'group'"),
        ({"steady": 1}, "'steady'"),
        ({"outputs": []}, "'outputs'"),
    ],
)
def test_what_a_browser_may_not_say_of_times(other: dict[str, Any], words: str) -> None:
    assert Timed.read(frame(TIMED, AGAIN), ROWS).row == 0
    with pytest.raises(RefusedError) as refused:
        Timed.read(frame(TIMED | other, AGAIN), ROWS)
    assert words in refused.value.why


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\0\0\0", b"\xff\xff\xff\xff{}", b"\3\0\0\0{}", b"\2\0\0\0[]", b"\2\0\0\0{]", b"\4\0\0\0null",
        (9).to_bytes(4, "little") + b'{"a":NaN}', (14).to_bytes(4, "little") + b'{"a":-Infinity', b"\1\0\0\0\xff",
        (100_000).to_bytes(4, "little") + b"[" * 100_000,
        (5_006).to_bytes(4, "little") + b'{"a":' + b"9" * 5_000 + b"}",
    ],
)  # fmt: skip
def test_what_is_no_frame(body: bytes) -> None:
    for reader in (Checked.read, Timed.read):
        with pytest.raises(RefusedError):
            reader(body, ROWS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted({*CHECKED, *TIMED})), value=JSON, rest=st.binary(max_size=40))
def test_anything_is_taken_or_refused(name: str, value: Any, rest: bytes) -> None:
    for reader, told, arrays in ((Checked.read, CHECKED, ARRAYS), (Timed.read, TIMED, AGAIN)):
        for body in (frame(told | {name: value}, arrays), frame(told | {name: value}) + rest):
            try:
                found = reader(body, ROWS)  # type: ignore[operator]
            except RefusedError:
                continue
            assert dumps(found.row) in ("0", "1")


def test_what_a_page_says_steers_no_terminal() -> None:
    told = Checked.read(frame({"row": 0, "absent": "\x1b]0;title\x07no\x1b[2J" + "x" * 1000 + "\nmore"}), ROWS)
    assert told.absent.startswith("noxx")
    assert len(told.absent) < 600
    assert told.absent.isprintable()


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/156.0.0.0 Safari/537",
         "Chrome 156 on Linux"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 "
         "Mobile/15E148 Safari/604.1", "Safari 18 on iOS 18"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 "
         "Safari/605.1.15", "Safari 26 on macOS"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Firefox 140 on Android 14"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
         "Safari/537.36 Edg/140.0.0.0", "Edge 140 on Windows"),
        ("curl/8", "a browser"),
        ("", "a browser"),
    ],
)  # fmt: skip
def test_browsers_by_name(agent: str, said: str) -> None:
    assert told_by(agent) == said
