"""Archives that others made: what leaves the folder, clashes, unpacks without end or is no file is refused."""

from __future__ import annotations

import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mh_edge.bundling import archive, paths
from mh_edge.bundling.archive import Unreadable, opened
from mh_edge.bundling.layout import BUNDLE_FILE
from mh_edge.errors import InputError

Content = str | bytes

DIRECTORY = b"PK\x01\x02"
FLAGS, METHOD, SIZE = 8, 10, 24
"""Where an entry of an archive's directory holds them."""


def written(path: Path, members: Mapping[str, Content], *more: tuple[str | zipfile.ZipInfo, Content]) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, content in (*members.items(), *more):
            made.writestr(name, content)
    return path


def patched(path: Path, member: str, place: int, form: str, value: int) -> Path:
    """Change a number in the directory's entry of a member."""
    content = bytearray(path.read_bytes())
    entry = content.rindex(member.encode()) - 46
    assert content[entry : entry + 4] == DIRECTORY
    struct.pack_into(form, content, entry + place, value)
    path.write_bytes(content)
    return path


def refused(path: Path) -> str:
    with pytest.raises(InputError) as raised, opened(path):
        pass
    assert sorted(one.name for one in path.parent.iterdir()) == [path.name]
    return raised.value.message


def content(path: Path) -> dict[str, bytes]:
    with opened(path) as files:
        return {name: b"".join(files.pieces(name)) for name in files.names}


PLAIN = {BUNDLE_FILE: "{}", "models/a.onnx": "a"}


def test_files_are_read_and_folders_are_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "kit.zip", PLAIN, ("models/", ""))
    assert content(path) == {BUNDLE_FILE: b"{}", "models/a.onnx": b"a"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("../a", "no path inside"), ("a/../../b", "no path inside"), ("/a", "no path inside"),
        ("a//b", "no path inside"), ("./a", "no path inside"), ("..", "no path inside"), ("", "no path inside"),
        ("../", "no path inside"), ("C:/a", "':'"), ("C:a", "':'"), ("a:stream", "':'"), ("..\\a", r"'\\'"),
        ("\\\\host\\a", r"'\\'"), ("a\nb", r"'\n'"), ("a\x1b[2J", r"'\x1b'"), ("a?", "'?'"), ("nul", "device"),
        ("x/COM1.txt", "device"), ("Aux.onnx", "device"), ("a.", "drops"), ("a ", "drops"), ("a" * 256, "too long"),
        ("a/" * 600 + "a", "too long"), ("models/A.onnx", "one file on some systems"), ("models/a.onnx", "twice"),
        ("BUNDLE.JSON", "one file"), ("models", "as if it were a folder"),
        ("models/a.onnx/b", "as if it were a folder"),
    ],
)  # fmt: skip
def test_paths_that_leave_the_folder_or_clash(tmp_path: Path, name: str, said: str) -> None:
    assert said in refused(written(tmp_path / "kit.zip", PLAIN, (zipfile.ZipInfo(name), "x")))


def test_names_that_some_system_takes_for_one(tmp_path: Path) -> None:
    said = refused(written(tmp_path / "kit.zip", PLAIN, ("caf\u00e9", "1"), ("cafe\u0301", "2")))
    assert "one file on some systems" in said


def test_a_name_that_ends_early(tmp_path: Path) -> None:
    path = written(tmp_path / "kit.zip", PLAIN, ("a#b", "x"))
    path.write_bytes(path.read_bytes().replace(b"a#b", b"a\0b"))
    assert r"'\x00'" in refused(path)


@pytest.mark.parametrize(
    ("mode", "said"),
    [(stat.S_IFLNK, "is a link"), *((kind, "is neither") for kind in (stat.S_IFCHR, stat.S_IFIFO, stat.S_IFDIR))],
)
def test_links_and_what_is_no_file(tmp_path: Path, mode: int, said: str) -> None:
    info = zipfile.ZipInfo("models/b.onnx")
    info.external_attr = (mode | 0o777) << 16
    assert said in refused(written(tmp_path / "kit.zip", PLAIN, (info, "/etc/passwd")))


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (FLAGS, 0x1, "has a password"),
        (FLAGS, 0x40, "has a password"),
        (METHOD, 14, "method 14"),
        (METHOD, 99, "method 99"),
    ],
)
def test_members_that_are_not_read(tmp_path: Path, place: int, value: int, said: str) -> None:
    path = written(tmp_path / "kit.zip", PLAIN)
    assert said in refused(patched(path, "models/a.onnx", place, "<H", value))


def test_more_than_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "kit.zip", PLAIN)
    patched(path, "models/a.onnx", SIZE, "<I", 2**32 - 2)
    assert content(path)["models/a.onnx"] == b"a"  # what is declared is believed by nobody
    monkeypatch.setattr(archive, "MOST_UNPACKED", 2**31)
    assert "would unpack to 4.3 GB" in refused(path)
    monkeypatch.setattr(paths, "MOST_FILES", 1)
    assert "more than 1 files" in refused(path)


def test_no_more_is_read_than_is_declared(tmp_path: Path) -> None:
    path = written(tmp_path / "kit.zip", PLAIN | {"models/a.onnx": bytes(50_000_000)})
    assert path.stat().st_size < 60_000
    patched(path, "models/a.onnx", SIZE, "<I", 10)
    with opened(path) as files, pytest.raises(Unreadable, match="CRC"):
        next(files.pieces("models/a.onnx"))


def test_a_bundle_in_a_folder_of_the_archive(tmp_path: Path) -> None:
    said = refused(written(tmp_path / "kit.zip", {f"kit/{name}": text for name, text in PLAIN.items()}))
    assert "has no bundle.json at its top, but 'kit/bundle.json'" in said
    assert "holds no bundle.json" in refused(written(tmp_path / "kit.zip", {"photo.jpg": "x"}))


@pytest.mark.parametrize("spoil", [lambda known: b"", lambda known: known[:-30], lambda known: b"%PDF-1.4"])
def test_what_is_no_archive(tmp_path: Path, spoil: Callable[[bytes], bytes]) -> None:
    path = written(tmp_path / "kit.zip", PLAIN)
    path.write_bytes(spoil(path.read_bytes()))
    assert "cannot be read" in refused(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0), bits=st.integers(1, 255))
def test_a_damaged_archive_gives_its_files_or_an_error_of_ours(tmp_path: Path, place: int, bits: int) -> None:
    path = written(tmp_path / "kit.zip", PLAIN | {"README.md": "a text, " * 20})
    damaged = bytearray(path.read_bytes())
    damaged[place % len(damaged)] ^= bits
    path.write_bytes(damaged)
    try:
        with opened(path) as files:
            for name in files.names:
                list(files.pieces(name))
    except (InputError, Unreadable):
        pass


@given(st.text(max_size=12))
@example("a/b.c")
@example("a/" + "é" * 127)
def test_a_path_without_fault_stays_where_it_should_on_every_system(path: str) -> None:
    if not paths.fault(path):
        for kind in (Path, PureWindowsPath):
            assert not kind(path).is_absolute()
            assert not PureWindowsPath(path).drive
            assert ".." not in kind(path).parts
            assert kind(path).as_posix() == path
