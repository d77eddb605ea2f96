"""Every example runs as its README says, and what it prints and writes is what it promises."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mh_edge.artifact import read_manifest
from mh_edge.inspection import inspect
from program_on_path import ROOT, environment

EXAMPLES = ROOT / "examples"
ELSEWHERE = {"08_scale_out_with_ray": "test-ray"}
"""Folders whose scripts need an environment of their own, without TensorFlow -> the make target that runs them."""

LIMIT = 300  # seconds, for a machine that is busy with other things; an example takes about ten

pytestmark = pytest.mark.slow


def run(script: Path, folder: Path, *arguments: str) -> str:
    """What the script prints; its last argument is the folder `out`."""
    done = subprocess.run(
        [sys.executable, str(script), *arguments, str(folder / "out")],
        cwd=folder,
        env=environment(folder / "bin"),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def shares(text: str) -> list[float]:
    """The percentages in a text."""
    return [float(number) for number in re.findall(r"([\d.]+)%", text)]


def assert_proven(folder: Path, *names: str) -> None:
    for name in names:
        for kind in ("onnx", "tflite"):
            manifest = read_manifest(folder / "out" / f"{name}.{kind}")
            assert manifest is not None
            assert manifest.verified is not None
            assert manifest.verified["passed"]
            assert manifest.verified["feeds"] >= 8
            assert not inspect(folder / "out" / f"{name}.{kind}").notes


def test_each_example_has_one_script_and_a_readme_that_names_it() -> None:
    folders = sorted(path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "__pycache__")
    assert [path.name for path in folders] == [
        "00_digits",
        "01_one_layer_repeated",
        "02_different_layers",
        "03_hidden_dim",
        "04_regularization",
        "05_multi_head_attention",
        "06_deploy_raspberry_pi",
        "07_deploy_web",
        "08_scale_out_with_ray",
        "own_rule",
    ]
    for folder in folders:
        if folder.name in ELSEWHERE:
            assert f"{ELSEWHERE[folder.name]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
            continue
        (script,) = folder.glob("*.py")
        assert f"examples/{folder.name}/{script.name}" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("script", "name", "rules", "operations"),
    [
        ("01_one_layer_repeated/lstm_heads.py", "lstm_heads", {"MultiHead", "LSTM", "Dense"}, {"LSTM": 2}),
        ("02_different_layers/conv_heads.py", "conv_heads", {"MultiHead", "Dense"}, {"Conv": 1}),
        ("03_hidden_dim/hidden_heads.py", "hidden_heads", {"MultiHead", "GRU", "Dense"}, {"GRU": 2}),
    ],
)
def test_heads(tmp_path: Path, script: str, name: str, rules: set[str], operations: dict[str, int]) -> None:
    printed = run(EXAMPLES / script, tmp_path)
    assert shares(printed)[0] > 80  # a tenth is chance
    assert_proven(tmp_path, name)
    made = inspect(tmp_path / "out" / f"{name}.onnx")
    assert set(made.rules) == rules
    assert {operation: made.ops[operation] for operation in operations} == operations
    assert "Loop" not in made.ops


def test_the_penalty_makes_heads_more_different(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "04_regularization/different_heads.py", tmp_path)
    (_, without), (_, penalised) = re.findall(r"alikeness ([\d.]+) -> ([\d.]+)", printed)
    assert float(without) > 0.2
    assert float(penalised) < 0.05
    assert min(shares(printed)) > 80
    assert_proven(tmp_path, "different_heads")


def test_attention_on_itself_and_on_other_lengths(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "05_multi_head_attention/attention.py", tmp_path)
    right, unexplained = shares(printed)
    assert right > 80
    assert unexplained < 5
    assert_proven(tmp_path, "self_attention", "lookup")
    query, key, value = inspect(tmp_path / "out/lookup.onnx").signature.inputs
    assert query.shape == ("batch", "query_sequence", 6)
    assert key.shape == ("batch", "key_sequence", 7)
    assert value.shape == ("batch", "key_sequence", 4)


def test_a_kit_for_a_raspberry_pi(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "06_deploy_raspberry_pi/deploy.py", tmp_path)
    assert shares(printed)[0] > 60  # a tenth is chance
    assert_proven(tmp_path, "digits")
    assert "PASS: 3 of 3 models are right here." in printed
    assert (tmp_path / "out/kit/sample.py").exists()


def test_a_model_for_the_web_is_proven_before_packages_of_npm_are_missed(tmp_path: Path) -> None:
    """With them, the bundle is made by `make test-web`."""
    printed = run(EXAMPLES / "07_deploy_web/deploy_web.py", tmp_path)
    assert shares(printed)[0] > 60  # a tenth is chance
    assert (tmp_path / "out/digits.onnx").is_file()
    assert "npm install onnxruntime-web@1.30" in printed


def test_own_rule_by_decorator(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "own_rule/own_rule.py", tmp_path)
    assert_proven(tmp_path, "scaled")
    assert "checked: onnx sequence, tflite sequence\n" in printed
    lines = re.findall(r"(with|without) the rule, \S+\.(onnx|tflite): (\d+) operations, made by (.*)", printed)
    count = {(which, kind): int(number) for which, kind, number, _ in lines}
    for which, kind, _, rules in lines:
        assert ("ScaleNorm" in rules) == (which == "with")
        assert count["with", kind] < count["without", kind]
    assert inspect(tmp_path / "out/scaled.onnx").ops["LpNormalization"] == 2
    assert inspect(tmp_path / "out/scaled.tflite").ops["L2_NORMALIZATION"] == 2


def test_own_rule_by_entry_point(tmp_path: Path) -> None:
    """Installed as a package: the layer is imported, the rules are found."""
    package = tmp_path / "installed"
    source = shutil.copytree(EXAMPLES / "own_rule", tmp_path / "source")  # pip builds where the source lies
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", str(package), str(source)], check=True, timeout=LIMIT)
    (tmp_path / "models.py").write_text(
        "import keras\nfrom scale_norm import ScaleNorm\n\n\n"
        "def small():\n    x = keras.Input((None, 6), name='x')\n    return keras.Model(x, ScaleNorm()(x))\n",
        encoding="utf-8",
    )
    subprocess.run(
        ["mh-edge", "export", "models:small", "-o", "out", "--to", "onnx", "--to", "tflite"],
        cwd=tmp_path,
        env=environment(tmp_path / "bin", package),
        check=True,
        timeout=LIMIT,
    )
    assert_proven(tmp_path, "small")
    assert inspect(tmp_path / "out/small.onnx").ops == {"LpNormalization": 1, "Mul": 1}
    assert inspect(tmp_path / "out/small.onnx").rules == {"ScaleNorm": 1}
    assert inspect(tmp_path / "out/small.tflite").ops == {"L2_NORMALIZATION": 1}  # a factor of 1 is folded away


def test_digits(tmp_path: Path) -> None:
    """Two epochs instead of thirty: the way is tested here, what is learned by `make demo`."""
    printed = run(EXAMPLES / "00_digits/digits.py", tmp_path, "--epochs", "2", "-o")
    assert_proven(tmp_path, "attention", "lstm_heads")
    rows = re.findall(r"out/(\w+)\.([\w.-]+) +([\d.]+) +([\d.]+)%", printed)
    small = [f"{scheme}.{kind}" for kind in ("onnx", "tflite") for scheme in ("int8", "int8-dynamic")]
    kinds = ["keras", "onnx", "tflite", *small]
    assert [(name, kind) for name, kind, _, _ in rows] == [
        (name, kind) for name in ("attention", "lstm_heads") for kind in kinds
    ]
    for model in (rows[: len(kinds)], rows[len(kinds) :]):
        right = {kind: float(share) for _, kind, _, share in model}
        floats = [right[kind] for kind in kinds[:3]]
        assert max(floats) - min(floats) < 0.5  # in percent of 360: at most one digit that was a tie
        assert min(floats) > 20
        assert min(right.values()) > max(floats) - 3  # hardly trained, many digits are near to another answer
        sizes = {kind: float(size) for _, kind, size, _ in model}
        assert all(sizes[kind] < sizes[kind.rpartition(".")[2]] for kind in small)
