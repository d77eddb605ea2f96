"""What is in the wheel, and what the base install can do."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from program_on_path import ROOT

PACKAGES = {"mh_edge": ROOT / "mh_edge"} | {
    name: ROOT / "converters" / name for name in ("mh_edge_onnx", "mh_edge_tflite")
}
OPTIONAL = ("tensorflow", "keras", "h5py", "tf2onnx", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "ai_edge_litert")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("mh_edge", "converters"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return zipfile.ZipFile(built)


def test_the_wheel_holds_every_module_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    modules = {
        f"{name}/{path.relative_to(folder).as_posix()}"
        for name, folder in PACKAGES.items()
        for path in folder.rglob("*.py")
    }
    marks = {f"{name}/py.typed" for name in PACKAGES} | {"mh_edge/profiling/report/style.css"}
    assert {"mh_edge_onnx/rules/lstm.py", "mh_edge_tflite/rules/lstm.py"} <= modules
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    folder = PACKAGES["mh_edge"]
    kits = {
        f"mh_edge/{path.relative_to(folder).as_posix()}"
        for path in (folder / "bundling/kits").rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    assert "mh_edge/bundling/kits/web/index.html" in kits
    assert held == modules | marks | kits


def test_the_metadata_names_licence_command_and_readme(wheel: zipfile.ZipFile) -> None:
    (info,) = {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert f"{info}/licenses/LICENSE" in wheel.namelist()
    scripts = configparser.ConfigParser()
    scripts.read_string(wheel.read(f"{info}/entry_points.txt").decode())
    assert dict(scripts["console_scripts"]) == {"mh-edge": "mh_edge.cli:main"}
    metadata = wheel.read(f"{info}/METADATA").decode()
    assert "License-Expression: MIT" in metadata or "License: MIT" in metadata
    assert (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[0] in metadata


def test_the_base_install_asks_for_three_packages(wheel: zipfile.ZipFile) -> None:
    (metadata,) = [wheel.read(name).decode() for name in wheel.namelist() if name.endswith("/METADATA")]
    wanted = [line.partition(":")[2].strip() for line in metadata.splitlines() if line.startswith("Requires-Dist:")]
    assert sorted(re.split("[<>=]", line)[0] for line in wanted if "extra ==" not in line) == ["click", "numpy", "rich"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "devices"),
        (["devices"], 0, 'pip install "mh-edge[cpu]"'),
        (["export", "models:small"], 6, 'pip install "mh-edge[export]"'),
        (["verify", "a.onnx", "square.onnx", "--atol", "1"], 6, 'pip install "mh-edge[cpu]"'),
        (["inspect", "square.tflite"], 6, 'pip install "mh-edge[litert]"'),
    ],
)
def test_without_the_extras_a_command_names_the_pip_line(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    """The optional packages are hidden from a fresh process, as if they had not been installed."""
    script = f"""
import sys
from importlib import metadata
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {OPTIONAL!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
def absent(name, real=metadata.version):
    if name.replace("-", "_") in {OPTIONAL!r}:
        raise metadata.PackageNotFoundError(name)
    return real(name)
metadata.version = absent
sys.path[:0] = {[str(ROOT), str(ROOT / "converters")]!r}
from pathlib import Path
from mh_edge.machine import SQUARE_ONNX, SQUARE_TFLITE
for name in ("a.onnx", "square.onnx"):
    Path(name).write_bytes(SQUARE_ONNX)
Path("square.tflite").write_bytes(SQUARE_TFLITE)
from mh_edge.cli import main
sys.exit(main({arguments!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr
