"""The report: what it says of a profile, that nothing in one can become markup, and that it needs no other file."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mh_edge.errors import ConversionError, UsageError
from mh_edge.profiling.report import check_target, distribution, labels, page, pareto, write
from mh_edge.profiling.report.entries import GLUE, Entry, entries, listed, ticks
from mh_edge.profiling.report.svg import Scale
from mh_edge.profiling.result import Agreement, Failure, Profile, Ratio, Row
from mh_edge.runtimes.placement import Fallback, OpTime, Placement
from profiling import profiles
from profiling.strategies import PROFILES

VOID = frozenset({"meta"})
INLINE = frozenset({"a", "b", "bdi", "span", "title"})


class Read(HTMLParser):
    """A page as a strict reader sees it. tags: each with its attributes; texts: with the tag around each."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attributes}) == len(attributes)
        self.tags.append((tag, {name: value or "" for name, value in attributes}))
        if tag not in INLINE:
            self.texts.append((tag, " "))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag not in INLINE:
            self.texts.append((tag, " "))

    def handle_data(self, data: str) -> None:
        self.texts.append((self._open[-1] if self._open else "", data))

    def attributes(self, tag: str) -> list[dict[str, str]]:
        return [found for name, found in self.tags if name == tag]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(text for tag, text in self.texts if tag not in ("style", "title")))


def check(page: str) -> Read:
    """What holds for every page: it is whole, it asks for nothing, its references lead somewhere, it shows no number
    that is none.
    """
    page.encode("utf-8")
    assert page.startswith('<!DOCTYPE html>\n<html lang="en">')
    read = Read(page)
    known = {found["id"] for _, found in read.tags if "id" in found}
    assert not {tag for tag, _ in read.tags} & {
        "script",
        "link",
        "img",
        "iframe",
        "object",
        "embed",
        "base",
        "form",
        "use",
    }
    for tag, found in read.tags:
        assert not {name for name in found if name.startswith("on") or name in ("src", "srcset", "xlink:href")}, tag
        if "href" in found:
            assert found["href"].removeprefix("#") in known
        if tag in ("line", "circle", "rect", "svg", "path"):
            drawn = {name: value for name, value in found.items() if name not in ("aria-label", "title", "class")}
            assert not re.search(r"nan|inf|None", " ".join(drawn.values())), drawn
        assert "nan" not in found.get("style", "")
    style = "".join(text for tag, text in read.texts if tag == "style")
    assert "url(" not in style
    assert "@import" not in style
    return read


@pytest.mark.parametrize("name", profiles.EVERY)
def test_every_page_is_whole_and_needs_nothing_else(name: str) -> None:
    text = page(profiles.EVERY[name]())
    check(text)
    assert "://" not in text
    assert "energy" not in text.lower()


def test_the_verdict_says_what_the_figures_say() -> None:
    text = check(page(profiles.usual())).text
    assert (
        "✓Passed t0.int8.onnx on cpu is the fastest: it takes 0.71 of the time of t0.onnx on cpu. "
        "The noise of the machine is a factor of 1.03." in text
    )
    for figure in ("0.108 ms", "×0.713", "0.699 to 0.727", "within the noise", "all 22 nodes", "312.5 kB", "9.4 MB"):
        assert figure in text
    assert not any(words in text for words in ("What went wrong", "Partly elsewhere", "What must be known"))


def test_what_went_wrong_comes_first_the_worst_before_the_rest() -> None:
    text = check(page(profiles.troubled())).text
    order = (
        "Failed, exit code 5", "The numbers of t0.tflite on litert-gpu are wrong.", "What went wrong", "Wrong numbers",
        "logits[0, 3] is 0.125", "Not available t0.onnx on cuda", "libcuda.so.1", "Install one, then",
        "Times are of one call", "Partly elsewhere", "t0.onnx on openvino", "CumSum", "What must be known",
        "Note t0.tflite on litert-reference",
    )  # fmt: skip
    at = 0
    for words in order:
        at = text.index(words, at)


def test_rows_that_failed_alike_share_a_box() -> None:
    failure = Failure("unavailable", "no GPU is here.", "Buy one.", 6)
    text = check(page(profiles.profile(*(Row(f"{name}.onnx", "cuda", failure=failure) for name in "abc")))).text
    assert text.count("no GPU is here.") == 1
    assert "a.onnx on cuda, b.onnx on cuda, c.onnx on cuda" in text


@pytest.mark.parametrize(
    ("ratios", "words"),
    [
        ([(0.5, True), (0.9, True)], "b.onnx on cpu is the fastest: it takes 0.50 of the time of a.onnx on cpu."),
        ([(0.04, True)], "it takes 0.0400 of the time of a.onnx on cpu (25.0 times as fast)."),
        ([(0.97, False), (1.2, True)], "None is faster than a.onnx on cpu (0.108 ms) beyond the noise."),
        ([(1.5, True)], "a.onnx on cpu (0.108 ms) is the fastest: the next, b.onnx on cpu, takes 1.50 times as long."),
        (
            [(1.5, True), (3.0, True)],
            "a.onnx on cpu (0.108 ms) is the fastest: the next, b.onnx on cpu, takes 1.50 times as long.",
        ),
        ([], "a.onnx on cpu takes 0.108 ms for a call, as a median."),
    ],
)
def test_speed_in_words(ratios: list[tuple[float, bool]], words: str) -> None:
    first = profiles.row(
        "a.onnx", latency=replace(profiles.latency(0.108), p50=0.108), ratio=Ratio(1.0, (1.0, 1.0), False)
    )
    others = [
        profiles.row(f"{name}.onnx", median=0.108 * ratio, ratio=Ratio(ratio, (ratio, ratio), differs))
        for name, (ratio, differs) in zip("bc", ratios, strict=False)
    ]
    assert words in check(page(profiles.profile(first, *others))).text


@pytest.mark.parametrize(("here", "what"), [(1, "Partly elsewhere"), (0, "All elsewhere")])
def test_what_may_run_elsewhere_is_told_calmly(here: int, what: str) -> None:
    """And what ran nowhere but elsewhere is never called the fastest."""
    placement = Placement(4, here, here, (Fallback("Where", 4 - here, (), "the CPU"),), "a record")
    fell = profiles.row("b.onnx", "gpu", 0.02, placement=placement)
    read = check(page(profiles.profile(profiles.row("a.onnx"), fell)))
    assert ("b.onnx on gpu is the fastest" in read.text) == (here > 0)
    assert f"Where ×{4 - here} ran on the CPU; the runtime gives no reason" in read.text
    assert f"{what} b.onnx on gpu {here} of 4 nodes" in read.text
    assert "went wrong" not in read.text
    assert "Fell back" not in read.text
    assert not any("warn" in found.get("class", "") for _, found in read.tags)


def test_what_fell_back_and_may_not_is_what_went_wrong() -> None:
    placement = Placement(4, 1, 1, (Fallback("Where", 3, (), "the CPU"),), "a record")
    failure = Failure("unavailable", "it fell back.", "Allow it.", 6)
    text = check(page(profiles.profile(Row("b.onnx", "gpu", placement=placement, failure=failure)))).text
    assert "What went wrong Fell back b.onnx on gpu it fell back." in text
    assert "Partly elsewhere" not in text


@pytest.mark.parametrize(
    ("agreement", "words"),
    [
        (Agreement(True, "cpu", 0.0, 1e-3), "is the reference"),
        (Agreement(True, "xnnpack", 0.0, 1e-3), "exactly as xnnpack"),
        (Agreement(True, "xnnpack", 3.1e-7, 1e-3), "as xnnpack error 3.1e-07"),
        (Agreement(True, "xnnpack", 0.057, 0.1), "off by 5.7% of the largest number (10% allowed) beside xnnpack"),
        (Agreement(False, "xnnpack", 0.57, 0.1), "WRONG, not as xnnpack off by 57.0% of the largest number"),
    ],
)
def test_numbers_in_words(agreement: Agreement, words: str) -> None:
    assert words in check(page(profiles.profile(profiles.row(agreement=agreement)))).text


def test_what_else_must_be_known_is_told() -> None:
    why = "every number that the CPU gave is 0, so nothing can be told from them"
    note = "8 samples a call; the ratio is that of the time of a sample"
    row = profiles.row(agreement=Agreement(None, "cpu", why=why), notes=(note,))
    text = check(page(profiles.profile(row))).text
    assert f"Note t0.onnx on cpu Its numbers are not compared: {why}" in text
    assert f"Note t0.onnx on cpu {note}" in text
    assert f"not compared {why}" in text  # in the table, too


def test_names_are_text_whatever_they_hold() -> None:
    read = check(page(profiles.hostile()))
    assert "</title><script>alert(1)</script>&amp;\"'\ufffdgpj.\ufffd\ufffd模型" in read.text
    assert read.tags.count(("title", {})) >= 1


def test_names_are_as_short_as_they_can_be() -> None:
    names = ["a/b/t.onnx", "a/c/t.onnx", "a/c/u.onnx"]
    assert [one.name for one in entries(profiles.profile(*map(profiles.row, names)))] == [
        "b/t.onnx",
        "c/t.onnx",
        "c/u.onnx",
    ]
    assert [one.name for one in entries(profiles.profile(*map(profiles.row, names[1:])))] == ["t.onnx", "u.onnx"]


def test_operations_are_counted_and_timed_as_on_the_terminal() -> None:
    ops = tuple(OpTime("", op, "XNNPACK", True, ms) for op, ms in (("ADD", 4.164), ("RESHAPE", 0.0), ("CAST", 0.0)))
    read = check(page(profiles.profile(profiles.row(ops=ops))))
    assert "4.16 ms in 3 operations" in read.text.replace(GLUE, " ")
    assert "RESHAPE 1 <1 µs 0%" in read.text.replace(GLUE, " ")
    drawn = [found["title"] for found in read.attributes("div") if found.get("class", "").startswith("part c")]
    assert [title.partition(":")[0] for title in drawn] == ["ADD"]


def test_of_many_kinds_of_operations_the_smallest_alone_have_no_colour() -> None:
    ops = tuple(OpTime("", f"Op{n:02}", "here", True, 1.0 + (20 - n) / 20) for n in range(20))
    read = check(page(profiles.profile(profiles.row(ops=ops))))
    drawn = [found for found in read.attributes("div") if found.get("class", "").startswith("part c")]
    assert [found["title"].partition(":")[0] for found in drawn] == [f"Op{n:02}" for n in range(12)]
    assert len({found["class"] for found in drawn}) == 12
    assert [
        found["title"].partition(":")[0] for found in read.attributes("div") if "rest" in found.get("class", "")
    ] == ["8 others"]


def test_the_front_holds_what_no_other_beats() -> None:
    def point(x: float, y: float) -> pareto.Point:
        return pareto.Point(Entry(profiles.row(), "a"), x, y)

    fast, good, beaten, close = point(1.0, 0.90), point(2.0, 0.95), point(3.0, 0.95), point(1.01, 0.90)
    assert pareto.front([good, beaten, fast, close], 1.0) == [fast, good]
    assert pareto.front([good, beaten, fast, close], 1.05) == [fast, close, good]
    assert pareto.front([point(1.02, 0.95), fast], 1.05) == [point(1.02, 0.95)]  # no slower, and better
    assert pareto.front([fast], None) == [fast]


def test_the_float_file_is_among_the_points_where_it_is_known() -> None:
    rows = entries(profiles.usual())
    figure = pareto.best_known(rows)
    assert figure is not None
    assert figure.key == "accuracy"
    points = {point.entry.name: point.y for point in pareto.points(rows, figure)}
    assert points["t0.onnx"] == 0.93525
    assert points["t0.int4.onnx"] == 0.9214
    others = entries(
        profiles.profile(
            *(replace(row, artifact=row.artifact.replace("t0.onnx", "f.onnx")) for row in profiles.usual().rows)
        )
    )
    assert {point.entry.name for point in pareto.points(others, figure)} == points.keys() - {"t0.onnx"}


@pytest.mark.parametrize(
    ("metrics", "key"),
    [
        ({"accuracy": 0.9, "top1_agreement": 0.8, "sqnr_db": 40.0}, "accuracy"),
        ({"accuracy": None, "top1_agreement": 0.8, "sqnr_db": 40.0}, "top1_agreement"),
        ({"accuracy": "nan", "top1_agreement": True, "sqnr_db": 40}, "sqnr_db"),
        ({"sqnr_db": math.inf}, None),
        (None, None),
        ([], None),
    ],
)
def test_the_figure_drawn_is_the_most_telling_that_is_known(metrics: object, key: str | None) -> None:
    row = profiles.row(quantized={"scheme": "int8", "metrics": metrics})
    found = pareto.best_known(entries(profiles.profile(row)))
    assert (None if found is None else found.key) == key
    check(page(profiles.profile(row)))


def test_wrong_numbers_are_never_drawn_as_accurate() -> None:
    row = profiles.usual().rows[1]
    wrong = replace(row, agreement=Agreement(False, "cpu", 0.5, 1e-3))
    assert pareto.best_known(entries(profiles.profile(wrong))) is None
    assert pareto.best_known(entries(profiles.profile(row))) is not None


def test_a_curve_has_a_peak_where_the_calls_are() -> None:
    scale = Scale(0.0, 100.0)
    two = distribution.density([20 + 0.05 * n for n in range(60)] + [70 + 0.05 * n for n in range(40)], scale)
    tops = [x for (_, a), (x, y), (_, b) in zip(two, two[1:], two[2:], strict=False) if y < a and y < b]
    assert [round(x, -1) for x in tops] == [20, 70]
    assert min(y for _, y in two) == pytest.approx(8.0)
    same = distribution.density([5.0] * 99, scale)
    assert all(math.isfinite(x) and math.isfinite(y) for x, y in same)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=9))
def test_scales_hold_their_values_and_have_ticks(values: list[float]) -> None:
    scale = Scale.over(values)
    assert all(0 < scale.at(value) < 100 for value in values)
    ticks = scale.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(0 <= scale.at(tick) <= 100 for tick in ticks)
    assert all(scale.at(b) - scale.at(a) > 17 for a, b in pairwise(ticks))


def test_ticks_are_written_exactly() -> None:
    near, far = ticks(Scale.over([0.04, 0.16])), ticks(Scale.over([0.04, 3e3]))
    assert [near(value) for value in (0.05, 0.1125, 1.25)] == ["50\u00a0µs", "112.5\u00a0µs", "1,250\u00a0µs"]
    assert [far(value) for value in (0.05, 2.5, 2e3)] == ["50\u00a0µs", "2.5\u00a0ms", "2\u00a0s"]
    assert pareto.Figure("accuracy", "accuracy").tick(0.9225) == "92.25%"


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=12))
@settings(max_examples=25, deadline=None)
def test_labels_cover_neither_points_nor_each_other(points: list[tuple[float, float]]) -> None:
    texts = [f"file {number}.onnx" for number in range(len(points))]
    for width in (600, 900, 1300):
        boxes = [
            labels._box(point, text, place, width, 320)
            for point, text, place in zip(
                points, texts, labels.places(points, texts, (600, 900, 1300), 320), strict=True
            )
            if place is not None
        ]
        dots = [labels._along((point, point), width, 320, labels.DOT) for point in points]
        for number, one in enumerate(boxes):
            assert one[0] >= 0
            assert one[2] <= width
            for other in [*boxes[:number], *dots]:
                assert one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]


def test_lists_of_names() -> None:
    assert [listed("abcdef"[:count], 3) for count in range(1, 7)] == [
        "a", "a and b", "a, b and c", "a, b, c and d", "a, b, c and 2 more", "a, b, c and 3 more",
    ]  # fmt: skip


def test_operations_are_cut_by_head_where_a_manifest_or_their_names_tell_them() -> None:
    ops = tuple(
        OpTime(f"net/heads/mh_edge.MultiHead/{head}/mul", "FULLY_CONNECTED", "XNNPACK", True, 0.1, "MultiHead")
        for head in ("dense_a", "dense_b")
    )
    assert "by head" in check(page(profiles.profile(profiles.row(ops=ops)))).text
    assert "by head" not in check(page(profiles.profile(profiles.row(ops=profiles.INT8_OPS)))).text


@given(PROFILES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_page_of_any_profile(found: Profile) -> None:
    check(page(found))


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    write(profiles.usual(), file)
    first = file.read_bytes()
    assert first.decode("utf-8") == page(profiles.usual())

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(ConversionError, match=r"report\.html' cannot be written: No space left"):
            write(profiles.lone(), file)
    assert file.read_bytes() == first
    assert os.listdir(tmp_path) == ["report.html"]
    write(profiles.lone(), file)
    assert file.read_bytes() != first
    assert os.listdir(tmp_path) == ["report.html"]


def _refused(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    os.mkfifo(tmp_path / "pipe")
    yield tmp_path, "is a folder"
    yield tmp_path / "pipe", "is no ordinary file"
    yield tmp_path / "missing" / "report.html", "there is no folder"


def test_where_no_page_can_be_written_is_said(tmp_path: Path) -> None:
    for path, words in _refused(tmp_path):
        with pytest.raises(UsageError, match=words):
            write(profiles.lone(), path)
    assert os.listdir(tmp_path) == ["pipe"]


def test_a_page_is_never_written_over_what_is_measured(tmp_path: Path) -> None:
    file, other = tmp_path / "m.onnx", tmp_path / "report.html"
    file.write_bytes(b"weights")
    (tmp_path / "soft.html").symlink_to(file)
    (tmp_path / "hard.html").hardlink_to(file)
    for name in ("m.onnx", "soft.html", "hard.html", "../" + tmp_path.name + "/m.onnx"):
        with pytest.raises(UsageError, match=r"would be written over .*m\.onnx', which is measured or read"):
            check_target(tmp_path / name, [tmp_path / "absent.npz", file])
    check_target(other, [file])
    other.write_text("an older page")
    check_target(other, [file, tmp_path / "absent.npz"])
    check_target(file)
