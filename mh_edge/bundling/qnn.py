"""qnn: a context binary for the Hexagon processor of one Qualcomm chip, compiled here by ONNX Runtime's QNN plugin,
so that the device neither compiles nor needs the model that it was made of.

It is an .onnx file of one node, EPContext, which only that plugin opens. Qualcomm's compiler lays out the same model in
one of two ways, by where the system puts the process in memory: about one file in eight has other bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mh_edge.artifact import Artifact
from mh_edge.bundling.golden import Case, Golden
from mh_edge.bundling.platform import Kit, Member, Platform
from mh_edge.errors import ConversionError, UnavailableError, UsageError
from mh_edge.packages import pip_line, require, version
from mh_edge.runtimes.apart import Apart
from mh_edge.runtimes.ort.contents import compiled
from mh_edge.runtimes.placement import Placement
from mh_edge.runtimes.qnn import SOC_MODEL, QnnSession

DEVICE, PACKAGE = QnnSession.device, str(QnnSession.plugin)

FIXED = {"batch": "--batch 1", "sequence": "--sequence N"}
"""The options of `mh-edge export` that fix a size, by its name; any other takes --dim NAME=N."""

LARGE, PADDING = "large", "mask row"
"""What the names of drawn cases hold: of those whose inputs are around 30, for which scores of attention are beyond
65504, the end of float16, before they are scaled; and of those with a row that is all padding.
"""

DOMAINS = ("", "com.microsoft")
"""Of ONNX itself, and of EPContext."""

CHIP, SDK = re.compile(rb"soc_type=(\w+);arch=(\d+)"), re.compile(rb"v(\d+\.\d+\.\d+)\.\d+")
"""Of what QNN's compiler writes into what it made: "SM8650" and "75", the version of Hexagon; "2.51.0", its own."""


def _for_older_runtimes(context: Path, source: Path) -> None:
    """Give the .onnx file around a context binary the version of the source, and the operator sets that it uses: ONNX
    Runtime stamps it with the newest that it knows itself, which those on devices often do not yet.
    """
    onnx = require("onnx", QnnSession.extra, "the platform 'qnn'")
    model = onnx.load_model(context)
    model.ir_version = onnx.load_model(source, load_external_data=False).ir_version
    used = sorted((one.domain, one.version) for one in model.opset_import if one.domain in DOMAINS)
    del model.opset_import[:]
    model.opset_import.extend(onnx.helper.make_opsetid(*one) for one in used)
    onnx.save_model(model, context)


class Qnn(Platform):
    """Every .onnx file of fixed sizes whose operations QNN takes, all of them.

    settings: soc_model (57, a Snapdragon 8 Gen 3), Qualcomm's number of the chip.
    """

    name = "qnn"
    formats = ("onnx",)
    takes = ("soc_model",)
    precision = QnnSession.arithmetic
    next_step = "Copy it to a device with that chip; README.md has the lines for Windows, Linux and Android."

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        super().__init__(settings)
        self._left_out: dict[str, list[str]] = {}
        self._soc_model = self.settings.get("soc_model", SOC_MODEL)
        if not self._soc_model.isdecimal():
            raise UsageError(f"soc_model is {self._soc_model!r}, which is no number.", "57 is a Snapdragon 8 Gen 3.")

    def require(self, artifact: Artifact) -> None:
        super().require(artifact)
        if version(PACKAGE) is None:
            raise UnavailableError(
                f"the platform 'qnn' needs the package {PACKAGE!r}, which is not installed.", pip_line(QnnSession.extra)
            )
        if compiled(artifact.path):
            raise ConversionError(
                f"{str(artifact.path)!r} was compiled for a device already.", "Bundle the file that it was made of."
            )
        if free := artifact.signature.free_dims():
            fix = " ".join(FIXED.get(name, f"--dim {name}=N") for name in free)
            raise ConversionError(
                f"{str(artifact.path)!r} leaves {' and '.join(free)} free, and QNN compiles for fixed sizes.",
                f"mh-edge export MODEL --to onnx {fix} --runtime plugins",
            )

    def cases(self, artifact: Artifact, found: Golden) -> Golden:
        """Those whose numbers Hexagon can give. It gives some number where IEEE 754 wants NaN or infinity, such as the
        mean of a row that is all padding; in a file of integers, which have no NaN, the CPU does so too. And it
        computes in float16. Raises ConversionError where no case is left.
        """
        kept = tuple(case for case in found.cases if self._right(case, found.precision))
        if not kept:
            raise ConversionError(
                f"{str(artifact.path)!r} gives NaN or infinity on all inputs that were drawn for it, and Hexagon gives "
                "numbers in their place.",
                "Give real inputs, on which its outputs are finite: --feeds x.npz.",
            )
        names = {case.name for case in kept}
        self._left_out[artifact.path.name] = [case.name for case in found.cases if case.name not in names]
        return replace(found, cases=kept)

    @staticmethod
    def _right(case: Case, precision: str) -> bool:
        undefined = precision == "integers" and PADDING in case.name
        beyond = case.name.startswith(LARGE)
        return not undefined and not beyond and all(np.isfinite(output).all() for output in case.outputs.values())

    def place(self, artifact: Artifact, models: Path) -> tuple[Path, ...]:
        target = models / f"{artifact.path.stem}_ctx.onnx"
        with Apart(DEVICE) as session:
            session.open(artifact.path, settings={"soc_model": self._soc_model, "context": str(target)})
            placement = session.placement()
        if not placement.whole:
            raise self._parts(artifact, placement)
        if not target.is_file():
            raise ConversionError(f"QNN wrote nothing for {str(artifact.path)!r}.", f"pip install --upgrade {PACKAGE}")
        _for_older_runtimes(target, artifact.path)
        return (target,)

    def _parts(self, artifact: Artifact, placement: Placement) -> ConversionError:
        if not placement.on_device:
            return ConversionError(
                f"QNN takes nothing of {str(artifact.path)!r} for the chip with soc_model {self._soc_model}.",
                "It may not know the number, or not compute floats on it: those older than Hexagon v69 need "
                "mh-edge quantize --scheme qnn-a16w8.",
            )
        left = "; ".join(f"{what} on {where}" for where, what in placement.elsewhere.items())
        return ConversionError(
            f"QNN takes {placement.on_device} of {placement.nodes} operations of {str(artifact.path)!r}, "
            f"and a context binary holds a whole model. Left are {left}.",
            "mh-edge export --runtime plugins writes forms that it takes, mh-edge quantize --scheme qnn-a16w8 integers "
            "that it takes; mh-edge inspect says more of each operation.",
        )

    def device(self, artifact_format: str) -> str:
        return DEVICE

    def finish(self, kit: Kit) -> Mapping[str, Mapping[str, Any]]:
        kit.copy("sample.py", "selftest.py")
        details = {member.name: self._details(member) for member in kit.members}
        made = next(iter(details.values()))
        chip = f" ({made['chip']}, Hexagon v{made['htp_arch']})" if "chip" in made else ""
        kit.readme(
            soc=f"`soc_model` {self._soc_model}{chip}",
            runtime=str(version("onnxruntime")),
            plugin=str(version(PACKAGE)),
            qnn=made.get("qnn", "unknown"),
            model=kit.members[0].model.relative_to(kit.folder).as_posix(),
            file=kit.members[0].model.name,
        )
        return details

    def _details(self, member: Member) -> dict[str, Any]:
        content = member.model.read_bytes()
        details: dict[str, Any] = {"soc_model": int(self._soc_model)}
        if (chip := CHIP.search(content)) is not None:
            details |= {"chip": chip[1].decode(), "htp_arch": int(chip[2])}
        if (sdk := SDK.search(content)) is not None:
            details["qnn"] = sdk[1].decode()
        return details | {"left_out": self._left_out[member.name]}
