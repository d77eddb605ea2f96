"""`mh_edge.bundle`: what every bundle holds, whatever its platform."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

import mh_edge
from bundling.kit import Plain
from mh_edge.bundling import golden
from mh_edge.bundling.golden import Case, Golden
from mh_edge.errors import ConversionError, NotEqualError, UsageError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_bundle_lists_every_file_and_the_same_command_gives_the_same_bytes(
    squares: tuple[Path, Path], plain: str, tmp_path: Path
) -> None:
    made = mh_edge.bundle(squares, plain, tmp_path / "kit", settings={"word": "x"})
    files = contents(tmp_path / "kit")
    told = json.loads(files.pop("bundle.json"))
    assert told["files"] == {
        name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in sorted(files.items())
    }
    assert set(files) >= {"README.md", "models/square.onnx", "models/square.tflite", "golden/square.onnx.bin"}
    assert [one["details"] for one in told["artifacts"]] == [{"word": "x"}] * 2
    assert made.files == len(files) + 1
    assert all(one.worst.right and one.cases >= golden.LEAST_CASES for one in made.artifacts)
    assert str(tmp_path) not in json.dumps(told)

    mh_edge.bundle(squares, plain, tmp_path / "new" / "kit.zip", settings={"word": "x"})
    mh_edge.bundle(squares, plain, tmp_path / "kit.zip", settings={"word": "x"})
    assert (tmp_path / "kit.zip").read_bytes() == (tmp_path / "new" / "kit.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == contents(tmp_path / "kit")


def test_golden_cases_are_read_as_they_were_written(squares: tuple[Path, Path], plain: str, tmp_path: Path) -> None:
    mh_edge.bundle(squares[:1], plain, tmp_path / "kit")
    (entry,) = json.loads((tmp_path / "kit/bundle.json").read_text())["artifacts"]
    content = (tmp_path / "kit" / entry["golden"]["path"]).read_bytes()
    read = Golden.read(entry["golden"], content)
    assert read.content() == content
    for case in read.cases:
        (x,), (y,) = case.inputs.values(), case.outputs.values()
        np.testing.assert_allclose(y, x * x, rtol=1e-6)


@pytest.mark.parametrize(
    ("got", "right"),
    [([1.0, np.nan, np.inf], True), ([1.01, np.nan, np.inf], True), ([1.1, np.nan, np.inf], False),
     ([1.0, 0.0, np.inf], False), ([1.0, np.nan, -np.inf], False), ([np.nan, np.nan, np.inf], False)],
)  # fmt: skip
def test_an_output_is_right_within_what_is_allowed_and_not_beyond(got: list[float], right: bool) -> None:
    case = Case("one", {}, {"y": np.array([1.0, np.nan, np.inf], "float32")}, {"y": 0.02})
    assert golden.judge(case, {"y": np.array(got, "float32")}).right is right


def test_whole_numbers_are_compared_as_such() -> None:
    case = Case("one", {}, {"y": np.array([2**60 + 1], "int64")}, {"y": 0.0})
    assert golden.judge(case, {"y": np.array([2**60 + 1], "int64")}).right
    assert not golden.judge(case, {"y": np.array([2**60 + 7], "int64")}).right


@pytest.mark.parametrize("got", [{}, {"y": np.zeros(2, "float64")}, {"y": np.zeros(3, "float32")},
                                 {"y": np.zeros(2, "float32"), "z": np.zeros(1)}])  # fmt: skip
def test_outputs_of_other_names_kinds_or_shapes_are_wrong(got: dict[str, np.ndarray]) -> None:
    case = Case("one", {}, {"y": np.zeros(2, "float32")}, {"y": 1.0})
    assert not golden.judge(case, got).right


def test_a_placed_file_that_computes_something_else_is_not_written(
    squares: tuple[Path, Path], plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(self: Plain, artifact: mh_edge.Artifact, models: Path) -> tuple[Path, ...]:
        path = models / "other.onnx"
        path.write_bytes(squares[0].read_bytes().replace(b"Mul", b"Add"))
        return (path,)

    monkeypatch.setattr(Plain, "place", other)
    with pytest.raises(NotEqualError, match="golden numbers on the device 'cpu'"):
        mh_edge.bundle(squares[:1], plain, tmp_path / "kit")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["square.onnx", "square.tflite"]


def test_what_is_there_is_replaced_only_where_it_is_a_bundle(
    squares: tuple[Path, Path], plain: str, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    mh_edge.bundle(squares, plain, kit)
    mh_edge.bundle(squares[:1], plain, kit)
    assert not (kit / "models/square.tflite").exists()
    before = contents(kit)
    (kit / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"'notes\.txt'"):
        mh_edge.bundle(squares, plain, kit)
    assert contents(kit) == before | {"notes.txt": b"mine"}
    (tmp_path / "photos.zip").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is no bundle"):
        mh_edge.bundle(squares, plain, tmp_path / "photos.zip")
    with pytest.raises(UsageError, match="is a file"):
        mh_edge.bundle(squares, plain, squares[0])
    assert {path.name for path in tmp_path.iterdir()} == {"kit", "photos.zip", "square.onnx", "square.tflite"}


def test_links_are_followed_and_what_a_user_put_beside_stays(
    squares: tuple[Path, Path], plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, link = tmp_path / "kit", tmp_path / "link"
    link.symlink_to(kit)
    mh_edge.bundle(squares, plain, link)
    mh_edge.bundle(squares[:1], plain, link)
    assert link.is_symlink()
    assert not (kit / "models/square.tflite").exists()
    for mine in (kit / "mine", kit / "models" / "mine"):
        mine.mkdir()
        with pytest.raises(UsageError, match="mine"):
            mh_edge.bundle(squares, plain, kit)
        mine.rmdir()
        mine.symlink_to(tmp_path)
        with pytest.raises(UsageError, match="mine"):
            mh_edge.bundle(squares, plain, kit)
        mine.unlink()
    monkeypatch.chdir(kit)
    with pytest.raises(UsageError, match="the folder that you are in"):
        mh_edge.bundle(squares, plain, ".")
    assert Path.cwd().is_dir()


def test_what_cannot_be_meant_is_said(squares: tuple[Path, Path], plain: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    twin = tmp_path / "b" / "Square.onnx"
    twin.write_bytes(squares[0].read_bytes())
    with pytest.raises(UsageError, match="the same name"):
        mh_edge.bundle([squares[0], twin], plain, tmp_path / "kit")
    with pytest.raises(UsageError, match="has no option 'soc'"):
        mh_edge.bundle(squares, plain, tmp_path / "kit", settings={"soc": "1"})
    with pytest.raises(UsageError, match="'toaster' is not known"):
        mh_edge.bundle(squares, "toaster", tmp_path / "kit")
    with pytest.raises(UsageError, match="--rtol is inf"):
        mh_edge.bundle(squares, plain, tmp_path / "kit", rtol=float("inf"))
    with pytest.raises(UsageError, match="no artifact"):
        mh_edge.bundle([], plain, tmp_path / "kit")


def test_a_format_that_the_platform_does_not_take_is_refused_with_the_option_that_gives_another(
    squares: tuple[Path, Path], plain: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plain, "formats", ("tflite",))
    with pytest.raises(ConversionError, match="--to tflite"):
        mh_edge.bundle(squares, plain, tmp_path / "kit")
