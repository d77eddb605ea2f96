"""An artifact: one converted model file, what is known of it, and the manifest that says so beside it.

`<artifact>.json` holds the sha256 of the artifact, its signature with the domains of its inputs, the rules applied,
the versions of the packages, the figures of the verification and the recipe. It holds no time and no path: the same
export writes the same bytes. A manifest whose sha256 is not that of the file beside it is stale and ignored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any

from mh_edge.jsontext import dumps
from mh_edge.signature import Signature, Tensor

MANIFEST_SUFFIX = ".json"
MANIFEST_LAYOUT = 1

FIELDS: Mapping[str, type | UnionType] = {
    "format": str,
    "sha256": str,
    "opset": int | None,
    "signature": dict,
    "rules": dict,
    "notes": list,
    "choices": list,
    "session_options": dict,
    "data": list,
    "versions": dict,
    "verified": dict | None,
    "quantized": dict | None,
    "recipe": dict,
}
"""What a manifest holds. A file that lacks one, or holds something else there, is not one of ours."""

ITEMS: Mapping[str, type] = {"rules": int, "notes": str, "choices": dict, "session_options": str, "data": str}
"""What the lists and dictionaries of a manifest hold."""

VERIFIED = frozenset({"passed", "feeds", "required_tolerance"})
"""What the figures of a verification hold at least."""

QUANTIZED = frozenset({"scheme", "metrics", "gate", "kept_float"})
"""What is recorded of a quantization."""

MODEL_SUFFIXES = (".keras", ".h5", ".hdf5")
"""What a Keras model's file ends in, and an artifact's never."""

FORMATS = {"onnx": "mh_edge_onnx", "tflite": "mh_edge_tflite"}
"""Each format (which is also the file's suffix) with the package whose `convert` makes it."""


@dataclass(frozen=True)
class Choice:
    """Which form a layer call was given where a rule had several, and why. layer: the call's path in the model."""

    layer: str
    choice: str
    why: str

    def __str__(self) -> str:
        return f"{self.layer}: {self.choice} ({self.why})"


@dataclass(frozen=True)
class Converted:
    """What a converter hands back: a model in the target's form, not yet written.

    rules: how many layer calls each rule lowered. notes: sentences for the user. save(path) writes the file,
    and external data named by its hash beside it where the format needs it -> all files written, the model first.
    choices: see Choice. session_options: ONNX Runtime's, those that the file's speed depends on.
    """

    format: str
    opset: int | None
    signature: Signature
    rules: Mapping[str, int]
    notes: tuple[str, ...]
    save: Callable[[Path], Sequence[Path]]
    choices: tuple[Choice, ...] = ()
    session_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Artifact:
    """A converted model file.

    bytes: with its external data. opset: of ONNX's own domain, None for TFLite. ops: how often each operation occurs,
    subgraphs included. rules: how many layer calls each rule lowered (known for TFLite from the manifest). verified:
    the figures of the verification, None when it was not verified. notes: what a user should know before
    running it. made: rule -> the operations it made, as far as the file marks them. choices, session_options: as in
    Converted, from the manifest. quantized: the scheme, what it lost, the gate it passed and what stayed in float; None
    when mh-edge did not quantize it.
    """

    path: Path
    format: str
    bytes: int
    sha256: str
    opset: int | None
    signature: Signature
    ops: Mapping[str, int]
    rules: Mapping[str, int]
    verified: Mapping[str, Any] | None
    notes: tuple[str, ...] = ()
    made: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    session_options: Mapping[str, str] = field(default_factory=dict)
    quantized: Mapping[str, Any] | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.signature.inputs

    @property
    def outputs(self) -> tuple[Tensor, ...]:
        return self.signature.outputs

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "opset": self.opset,
            "inputs": [tensor.to_json() for tensor in self.signature.inputs],
            "outputs": [tensor.to_json() for tensor in self.signature.outputs],
            "states": [state.to_json() for state in self.signature.states],
            "ops": dict(self.ops),
            "rules": dict(self.rules),
            "made": {rule: dict(ops) for rule, ops in self.made.items()},
            "verified": None if self.verified is None else dict(self.verified),
            "notes": list(self.notes),
            "choices": [asdict(choice) for choice in self.choices],
            "session_options": dict(self.session_options),
            "quantized": None if self.quantized is None else dict(self.quantized),
        }


@dataclass(frozen=True)
class Manifest:
    """What is written beside an artifact; data: names of its external data files."""

    format: str
    sha256: str
    opset: int | None
    signature: Signature
    rules: Mapping[str, int]
    notes: tuple[str, ...]
    choices: tuple[Choice, ...]
    session_options: Mapping[str, str]
    data: tuple[str, ...]
    versions: dict[str, str]
    verified: Mapping[str, Any] | None
    recipe: Mapping[str, Any]
    quantized: Mapping[str, Any] | None = None

    def write(self, artifact: Path) -> Path:
        """Write it beside the artifact -> its path."""
        path = manifest_path(artifact)
        fields = {
            "mh_edge_manifest": MANIFEST_LAYOUT,
            "format": self.format,
            "sha256": self.sha256,
            "opset": self.opset,
            "signature": self.signature.to_json(),
            "rules": dict(self.rules),
            "notes": list(self.notes),
            "choices": [asdict(choice) for choice in self.choices],
            "session_options": dict(self.session_options),
            "data": list(self.data),
            "versions": dict(self.versions),
            "verified": self.verified,
            "quantized": self.quantized,
            "recipe": dict(self.recipe),
        }
        path.write_text(dumps(fields, indent=1) + "\n", encoding="utf-8")
        return path


def manifest_path(artifact: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return artifact.with_name(artifact.name + MANIFEST_SUFFIX)


def read_manifest(artifact: Path, sha256: str | None = None) -> Manifest | None:
    """The manifest beside an artifact; None when there is none, it is not one of ours, or it is stale (of another
    file).
    """
    fields = _fields(manifest_path(artifact))
    if fields is None or fields["sha256"] != (sha256 or file_sha256(artifact)):
        return None
    try:
        signature = Signature.from_json(fields["signature"])
        choices = tuple(Choice(**item) for item in fields["choices"])
    except (KeyError, TypeError, ValueError):
        return None
    return Manifest(
        format=fields["format"],
        sha256=fields["sha256"],
        opset=fields["opset"],
        signature=signature,
        rules=fields["rules"],
        notes=tuple(fields["notes"]),
        choices=choices,
        session_options=fields["session_options"],
        data=tuple(fields["data"]),
        versions=fields["versions"],
        verified=fields["verified"],
        recipe=fields["recipe"],
        quantized=fields["quantized"],
    )


def unreferenced_data(folder: Path, artifact_names: Sequence[str], kept: Sequence[str]) -> list[str]:
    """External data files that only the manifests of these artifacts, about to be replaced, refer to.

    kept: names that the new files refer to. Data of a stale manifest is left alone: whose it is can no longer be said.
    """
    replaced: set[str] = set()
    used = set(kept)
    for path in sorted(folder.glob(f"*{MANIFEST_SUFFIX}")):
        artifact = path.with_suffix("")
        fields = _fields(path)
        if fields is None:
            continue
        if artifact.name not in artifact_names:
            used.update(fields["data"])
        elif fields["data"] and artifact.is_file() and fields["sha256"] == file_sha256(artifact):
            replaced.update(fields["data"])
    return sorted(replaced - used)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fields(path: Path) -> dict[str, Any] | None:
    """The content of a manifest of ours, else None."""
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and _ours(fields) else None


def _ours(fields: Mapping[str, Any]) -> bool:
    """Whether these are the fields of a manifest as `Manifest.write` writes them."""
    if fields.get("mh_edge_manifest") != MANIFEST_LAYOUT or not fields.keys() >= FIELDS.keys():
        return False
    if not all(isinstance(fields[key], kind) for key, kind in FIELDS.items()):
        return False
    items = {key: fields[key].values() if isinstance(fields[key], dict) else fields[key] for key in ITEMS}
    if not all(isinstance(item, kind) for key, kind in ITEMS.items() for item in items[key]):
        return False
    texts = all(isinstance(text, str) for choice in fields["choices"] for text in choice.values())
    figures = ((fields["verified"], VERIFIED), (fields["quantized"], QUANTIZED))
    return texts and all(found is None or found.keys() >= least for found, least in figures)
