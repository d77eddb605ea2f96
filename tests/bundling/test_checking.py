"""`mh-edge verify BUNDLE`: what differs is named, what is wrong is shown, and what lies is refused."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

import mh_edge
from bundling.kit import Plain
from bundling.tampering import packed, sealed
from mh_edge.bundling import check, checking, platform
from mh_edge.bundling.golden import Worst
from mh_edge.bundling.layout import BUNDLE_FILE
from mh_edge.cli import main
from mh_edge.errors import InputError, UnavailableError
from mh_edge.machine import SQUARE_ONNX

Change = Callable[[dict[str, Any]], object]

RIGHT = Worst("normal", "y", (0,), 1.0, 1.0, 0.0, 0.1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bundle of the square of a vector; not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "square.onnx").write_bytes(SQUARE_ONNX)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(platform.PLATFORMS, Plain.name, f"{Plain.__module__}:{Plain.__name__}")
        mh_edge.bundle([folder / "square.onnx"], Plain.name, folder / "kit")
        yield folder / "kit"


@pytest.fixture
def kit(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "kit"))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model is right."""
    monkeypatch.setattr(checking.golden, "run", lambda *known: RIGHT)


def test_a_bundle_passes_as_a_folder_and_as_an_archive(made: Path, tmp_path: Path) -> None:
    for path in (made, packed(made, tmp_path / "kit.ZIP")):
        found = check(path)
        assert found.passed
        assert found.platform == "plain"
        assert found.files.to_json() == {"checked": 4, "changed": [], "missing": [], "unlisted": []}
        (one,) = found.artifacts
        assert one.right
        assert (one.device, one.cases) == ("cpu", 3)
        assert one.worst is not None
        assert one.worst.error <= one.worst.allowed


def test_a_wrong_number_is_found_and_shown(
    kit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = json.loads((kit / BUNDLE_FILE).read_text())["artifacts"][0]
    case = entry["golden"]["cases"][1]
    content = bytearray((kit / entry["golden"]["path"]).read_bytes())
    y = np.frombuffer(content, "<f4", 1, case["outputs"]["y"]["offset"] + 4)
    y += np.float32(2 * case["outputs"]["y"]["allowed"])
    (kit / entry["golden"]["path"]).write_bytes(content)
    monkeypatch.chdir(tmp_path)
    assert main(["verify", str(sealed(kit))]) == 5
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert f"y[1] in {case['name']!r}" in out


@pytest.mark.usefixtures("quick")
def test_changed_missing_and_unlisted_files_are_named(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kit / "models/square.onnx").write_bytes(SQUARE_ONNX.replace(b"Mul", b"Add"))
    (kit / "README.md").unlink()
    (kit / "golden/more").mkdir()
    (kit / "golden/more/new.bin").touch()
    assert main(["verify", str(kit), "--json"]) == 5
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {
        "checked": 3,
        "changed": ["models/square.onnx"],
        "missing": ["README.md"],
        "unlisted": ["golden/more/new.bin"],
    }
    assert (found["passed"], found["bundle"], found["platform"]) == (False, str(kit), "plain")
    (one,) = found["artifacts"]
    assert (one["right"], one["worst"]) == (None, None)
    assert "models/square.onnx" in one["reason"]
    assert main(["verify", str(kit), "-q"]) == 5
    err = capsys.readouterr().err
    assert "changed: models/square.onnx\nmissing: README.md\nunlisted: golden/more/new.bin\n" in err


@pytest.mark.parametrize("name", ["README.md", BUNDLE_FILE, "golden/square.onnx.bin", "models/square.onnx"])
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 100_000), bits=st.integers(1, 255))
@pytest.mark.usefixtures("quick")
def test_any_changed_byte_names_its_file_and_no_other(made: Path, kit: Path, name: str, place: int, bits: int) -> None:
    content = bytearray((made / name).read_bytes())
    content[place % len(content)] ^= bits
    (kit / name).write_bytes(content)
    for path in (kit, packed(kit, kit.parent / "kit.zip")):
        found = named(path)
        assert found == (name,) if name != BUNDLE_FILE else found in ((name,), "a sentence that names it")
    shutil.copyfile(made / name, kit / name)


@pytest.mark.parametrize(("old", "new"), [(b"ONNX Runtime", b"ONNX runtime"), (b'"sha256": "', b'"sha256":  "')])
@pytest.mark.usefixtures("quick")
def test_a_change_that_leaves_bundle_json_readable_is_named(kit: Path, old: bytes, new: bytes) -> None:
    content = (kit / BUNDLE_FILE).read_bytes()
    (kit / BUNDLE_FILE).write_bytes(content.replace(old, new, 1))
    found = check(kit)
    assert found.files.changed == (BUNDLE_FILE,)
    assert found.platform is None
    last = content.rstrip().rfind(b'"') - 1  # a digit of the hash of itself
    (kit / BUNDLE_FILE).write_bytes(content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :])
    assert check(kit).files.changed == (BUNDLE_FILE,)


def named(path: Path) -> tuple[str, ...] | str:
    """The files that are not as listed."""
    try:
        found = check(path)
    except InputError as error:
        return "a sentence that names it" if BUNDLE_FILE in error.message else error.message
    assert not found.passed
    return (*found.files.changed, *found.files.missing, *found.files.unlisted)


@pytest.mark.usefixtures("quick")
def test_a_device_that_is_not_here_is_said_after_the_hashes_were_checked(
    kit: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent(*known: object) -> Worst:
        raise UnavailableError("the device 'qnn' is not here.", "pip install qnn")

    monkeypatch.setattr(checking.golden, "run", absent)
    assert main(["verify", str(kit)]) == 6
    out = capsys.readouterr().out
    assert "NOT RUN" in out
    assert "the device 'qnn' is not here. pip install qnn" in out
    assert "4 files, all as listed" in out
    (kit / "README.md").write_text("other")
    assert main(["verify", str(kit)]) == 5
    assert "changed: README.md" in capsys.readouterr().out
    sealed(kit, lambda told: told.update(platform="toaster"))
    assert check(kit).exit_code == 6
    assert "'toaster'" in check(kit).artifacts[0].reason


def test_a_model_that_no_runtime_reads_is_wrong(kit: Path) -> None:
    (kit / "models/square.onnx").write_bytes(b"\x0a\xff nonsense")
    (one,) = check(sealed(kit)).artifacts
    assert one.right is False
    assert "square.onnx" in one.reason


def test_an_input_may_have_the_name_of_an_argument_of_numpy(made: Path, tmp_path: Path) -> None:
    model = onnx.load(made / "models/square.onnx")
    model.graph.input[0].name = "file"
    model.graph.node[0].input[:] = ["file", "file"]
    onnx.save(model, tmp_path / "named.onnx")
    assert mh_edge.bundle([tmp_path / "named.onnx"], Plain.name, tmp_path / "kit").artifacts[0].worst.right


def arrays(told: dict[str, Any], case: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = told["artifacts"][0]["golden"]["cases"][case]
    return found


def x(told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = arrays(told, 1)["inputs"]["x"]
    return found


LIES: dict[str, tuple[Change, str]] = {
    "layout": (lambda told: told.update(mh_edge_bundle=2), "has the layout 2"),
    "layout_kind": (lambda told: told.update(mh_edge_bundle=True), "True at mh_edge_bundle"),
    "platform": (lambda told: told.update(platform=["web"]), "['web'] at platform, not a text"),
    "no_artifacts": (lambda told: told.update(artifacts=[]), "0 at artifacts"),
    "many_artifacts": (lambda told: told.update(artifacts=told["artifacts"] * 101), "101 at artifacts"),
    "artifact": (lambda told: told.update(artifacts=[7]), "7 at artifacts[0], not an object"),
    "files": (lambda told: told.update(files=[]), "[] at files, not an object"),
    "size": (lambda told: told["files"]["README.md"].update(bytes=-1), "-1 at files['README.md'].bytes"),
    "size_kind": (lambda told: told["files"]["README.md"].update(bytes=1.0), "1.0 at files['README.md'].bytes"),
    "hash": (lambda told: told["files"]["README.md"].update(sha256="ab"), "'ab' at files['README.md'].sha256"),
    "file": (lambda told: told["files"].update(x=None), "None at files['x']"),
    "itself": (lambda told: told["files"].update({BUNDLE_FILE: told["files"]["README.md"]}), "'bundle.json' twice"),
    "up": (lambda told: told["files"].update({"../x": told["files"]["README.md"]}), "'../x', which is no path inside"),
    "absolute": (lambda told: told["files"].update({"/etc/x": told["files"]["README.md"]}), "'/etc/x', which is no"),
    "case": (lambda told: told["files"].update({"readme.MD": told["files"]["README.md"]}), "one file on some systems"),
    "above": (lambda told: told["files"].update({"README.md/x": told["files"]["README.md"]}), "as if it were a folder"),
    "model": (lambda told: told["artifacts"][0].update(path="../s.onnx"), "'../s.onnx' at artifacts[0], not a listed"),
    "data": (lambda told: told["artifacts"][0].update(data=["/etc/passwd"]), "'/etc/passwd' at artifacts[0], not a"),
    "data_kind": (lambda told: told["artifacts"][0].update(data=[{}]), "{} at artifacts[0], not a listed"),
    "bin": (lambda told: told["artifacts"][0]["golden"].update(path="x"), "'x' at artifacts[0], not a listed"),
    "format": (lambda told: told["artifacts"][0].update(format="exe"), "'exe' at artifacts[0].format"),
    "golden": (lambda told: told["artifacts"][0].update(golden=None), "None at artifacts[0].golden, not an object"),
    "cases": (lambda told: told["artifacts"][0]["golden"].update(cases=[]), "lists 0 bytes"),
    "case_kind": (lambda told: told["artifacts"][0]["golden"].update(cases=["a"]), "'a' at golden of 'square.onnx'"),
    "precision": (lambda told: told["artifacts"][0]["golden"].update(precision="any"), "'any' at golden of"),
    "object": (lambda told: x(told).update(dtype="object"), "'object' at golden of 'square.onnx'.cases[1].inputs['x']"),
    "fields": (lambda told: x(told).update(dtype="f4,O"), "'f4,O' at"),
    "shape": (lambda told: x(told).update(shape=[-1]), "[-1] at"),
    "bool_shape": (lambda told: x(told).update(shape=[True]), "[True] at"),
    "huge": (lambda told: x(told).update(shape=[2**31]), "[2147483648] at"),
    "axes": (lambda told: x(told).update(shape=[1] * 33), "at most 32 whole numbers"),
    "longer": (lambda told: x(told).update(shape=[6]), "where the array before it ends"),
    "wider": (lambda told: x(told).update(dtype="float64"), "where the array before it ends"),
    "negative": (lambda told: x(told).update(offset=-8), "-8 at"),
    "beyond": (lambda told: x(told).update(offset=2**40), "1099511627776 at"),
    "overlap": (lambda told: x(told).update(offset=0), "0 at"),
    "fraction": (lambda told: x(told).update(offset=32.0), "32.0 at"),
    "case_name": (lambda told: arrays(told).update(name="\x1b[2J"), r"'\x1b[2J' at golden of"),
    "input_name": (lambda told: arrays(told)["inputs"].update({"\x7f": x(told)}), r"'\x7f' at golden of"),
    "no_outputs": (lambda told: arrays(told, 2).update(outputs={}), "not one or more"),
    "nothing_allowed": (lambda told: arrays(told)["outputs"]["y"].pop("allowed"), "None at"),
    "anything_allowed": (lambda told: arrays(told)["outputs"]["y"].update(allowed=float("inf")), "'inf' at"),
    "more_than_a_number": (lambda told: arrays(told)["outputs"]["y"].update(allowed=10**400), "at golden of"),
    "long_name": (lambda told: arrays(told)["inputs"].update({"x" * 70_000: x(told)}), "at most 1000 characters"),
    "option": (
        lambda told: told["artifacts"][0].update(session_options={"ep.context_enable": "1"}),
        "'ep.context_enable' at artifacts[0].session_options",
    ),
    "less_than_nothing": (lambda told: arrays(told)["outputs"]["y"].update(allowed=-0.1), "-0.1 at"),
    "large": (lambda told: told["files"]["golden/square.onnx.bin"].update(bytes=2**40), "1099511627776 at files"),
    "last": (lambda told: told["artifacts"][0]["golden"]["cases"].pop(), "bytes of golden arrays"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.usefixtures("quick")
def test_what_bundle_json_may_not_say_is_refused_with_its_place(kit: Path, lie: str) -> None:
    change, said = LIES[lie]
    with pytest.raises(InputError) as raised:
        check(sealed(kit, change))
    assert said in raised.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), value=JSON)
@pytest.mark.usefixtures("quick")
def test_whatever_bundle_json_says_instead_of_a_value_is_a_verdict_or_a_sentence(
    made: Path, kit: Path, data: st.DataObject, value: object
) -> None:
    def change(told: Any) -> None:
        while True:
            key = data.draw(st.sampled_from(sorted(told) if isinstance(told, dict) else range(len(told))))
            if not isinstance(told[key], dict | list) or not told[key] or not data.draw(st.integers(0, 5)):
                told[key] = value
                return
            told = told[key]

    shutil.copyfile(made / BUNDLE_FILE, kit / BUNDLE_FILE)
    with contextlib.suppress(InputError):
        check(sealed(kit, change))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"{}", b"\xff\xfe", b'{"mh_edge_bundle": NaN}', b"[" * 100_000,
     b'{"a":' * 500 + b"1" + b"}" * 500, b'{"mh_edge_bundle": 1' + b"0" * 5000 + b"}", b" " * (2**24 + 1)],
    ids=["empty", "cut", "list", "foreign", "binary", "nan", "deep", "deep_object", "long", "huge"],
)  # fmt: skip
def test_what_is_no_bundle_json_is_a_sentence(kit: Path, content: bytes) -> None:
    (kit / BUNDLE_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"bundle\.json of"):
        check(kit)


def reading(location: str, path: Path) -> None:
    """y = x * w, with w in another file, in a body of a branch."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value=location)
    y, z = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in "yz")
    body = helper.make_graph([helper.make_node("Mul", ["x", "w"], ["z"])], "body", [], [z], [weight])
    node = helper.make_node("If", ["yes"], ["y"], then_branch=body, else_branch=body)
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph([node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [4])], [y], [yes])
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


@pytest.mark.usefixtures("quick")
def test_a_model_may_read_its_own_files_alone(kit: Path) -> None:
    (kit / "models/w.bin").write_bytes(bytes(16))
    (kit.parent / "w.bin").write_bytes(bytes(16))
    for location in ("../../w.bin", str(kit.parent / "w.bin"), "../README.md", "./w.bin", "other.bin", ""):
        reading(location, kit / "models/square.onnx")
        with pytest.raises(InputError, match="which is none of its files"):
            check(sealed(kit))
    reading("w.bin", kit / "models/square.onnx")
    with pytest.raises(InputError, match=r"reads 'w\.bin', which is none of its files"):
        check(sealed(kit))
    assert check(sealed(kit, lambda told: told["artifacts"][0].update(data=["models/w.bin"]))).passed


@pytest.mark.usefixtures("quick")
def test_what_was_compiled_may_not_lie_elsewhere(kit: Path) -> None:
    def compiled(embedded: int) -> None:
        node = helper.make_node(
            "EPContext", ["x"], ["y"], domain="com.microsoft", embed_mode=embedded, ep_cache_context="/etc/passwd"
        )
        graph = helper.make_graph([node], "g", [], [])
        onnx.save(helper.make_model(graph), str(kit / "models/square.onnx"))

    compiled(1)
    assert check(sealed(kit)).passed
    compiled(0)
    with pytest.raises(InputError, match="'/etc/passwd', which is none of its files"):
        check(sealed(kit))


@pytest.mark.parametrize("kind", ["file", "folder", "inside", "bundle.json", "socket"])
@pytest.mark.usefixtures("quick")
def test_links_and_what_is_no_file_are_refused_in_a_folder(
    kit: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = shutil.copytree(kit, kit.parent / "outside")
    if kind == "folder":
        shutil.rmtree(kit / "models")
        (kit / "models").symlink_to(outside / "models")
    elif kind == "socket":
        monkeypatch.chdir(kit)  # a path of a socket is short
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("new")
    else:
        name = {"bundle.json": BUNDLE_FILE}.get(kind, "README.md")
        (kit / name).unlink()
        (kit / name).symlink_to(kit / "models/square.onnx" if kind == "inside" else outside / name)
    with pytest.raises(InputError, match="is neither a file nor a folder" if kind == "socket" else "is a link"):
        check(kit)


def test_what_is_no_file_is_not_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "kit.zip")
    assert main(["verify", str(tmp_path / "kit.zip")]) == 3
    assert "is no file" in capsys.readouterr().err


def test_what_cannot_be_meant(kit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for args, code, said in (
        ([kit / "models/square.onnx"], 2, "CANDIDATE"),
        ([kit, "--rtol", "1"], 2, "--rtol is for a CANDIDATE"),
        ([kit / "golden"], 3, "it holds no bundle.json"),
        ([kit.parent / "none.zip"], 3, "there is no bundle"),
    ):
        assert main(["verify", *map(str, args)]) == code
        assert said in capsys.readouterr().err
