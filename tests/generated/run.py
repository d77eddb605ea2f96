"""Export and prove many generated models, and write what came of it.

python tests/generated/run.py --models 300 --output tests/generated/results.md
python tests/generated/run.py --recipe '{"nodes": ...}'      # one again, made smaller where it fails
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "converters"), str(ROOT / "tests")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from generated.proving import EQUAL, FAULT, REFUSED, SENSELESS, UNPROVEN, Outcome, prove, shrunk, unnoticed  # noqa: E402
from generated.recipes import recipe  # noqa: E402
from generated.strategies import drawn  # noqa: E402
from mh_edge.opsets import OLDEST_RUNTIME  # noqa: E402

MEANINGS = {
    EQUAL: "exported to three files, each proven equal",
    REFUSED: "refused with a reason",
    UNPROVEN: "float32 itself is too uncertain for a verdict",
    SENSELESS: "Keras itself does not build or run it",
    FAULT: "not equal, or an error",
}
CHECKED_FOR_WEIGHTS = 10
"""Of every so many models one is verified again with wrong weights, which takes several times as long."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", type=int, default=300)
    arguments.add_argument("--start", type=int, default=0, help="another number draws other models")
    arguments.add_argument("--output", type=Path)
    arguments.add_argument("--recipe", help="JSON of one model")
    given = arguments.parse_args()
    if given.recipe is not None:
        return _one(given.recipe)
    started = time.monotonic()
    outcomes: list[Outcome] = []
    counting, blind = 0, []
    for number, one in enumerate(drawn(given.models, given.start)):
        with tempfile.TemporaryDirectory() as folder:
            outcomes.append(prove(one, Path(folder)))
            if outcomes[-1].state == EQUAL and number % CHECKED_FOR_WEIGHTS == 0:
                weights, unseen = unnoticed(one, Path(folder))
                counting += len(weights)
                blind += [f"{path}: `{one.text()}`" for path in unseen]
        if outcomes[-1].state != EQUAL:
            print(f"{number}: {outcomes[-1]}", flush=True)
        text = _report(outcomes, counting, blind, given.start, time.monotonic() - started)
        if given.output is not None:
            given.output.write_text(text)  # each time, so that a run that is broken off has told what it found
    print(text)
    return int(blind != [] or any(outcome.state == FAULT for outcome in outcomes))


def _one(text: str) -> int:
    with tempfile.TemporaryDirectory() as folder:
        outcome = prove(recipe(text), Path(folder))
        if outcome.state != EQUAL:
            outcome = shrunk(outcome, Path(folder))
    print(outcome)
    return int(outcome.state != EQUAL)


def _report(outcomes: Sequence[Outcome], counting: int, blind: Sequence[str], start: int, seconds: float) -> str:
    states = Counter(outcome.state for outcome in outcomes)
    kinds = Counter(node.kind for outcome in outcomes for node in outcome.recipe.nodes)
    verified = [outcome.verification for outcome in outcomes if outcome.verification is not None]
    candidates = [candidate for found in verified for candidate in found.candidates]
    feeds = sum(candidate.feeds for candidate in candidates)
    unsure = sum(candidate.inconclusive for candidate in candidates)
    clones = sum(found.yardstick == "float64 clone" for found in verified)
    lines = [
        "# Generated models",
        "",
        f"{len(outcomes)} models drawn by hypothesis from {start} on, each exported to ONNX for the CPU (an opset from "
        f"{min(OLDEST_RUNTIME)} to {max(OLDEST_RUNTIME)}), to portable ONNX and to TFLite, and verified on both "
        f"runtimes. Made by `python tests/generated/run.py --models {len(outcomes)} --start {start}` in "
        f"{seconds / 60:.0f} minutes.",
        "",
        "| models | what became of them |",
        "|---|---|",
        *(f"| {states[state]} | {state}: {meaning} |" for state, meaning in MEANINGS.items()),
        "",
        f"{feeds} feeds were compared, of which {unsure} prove nothing; {clones} of {len(verified)} models had a "
        f"float64 clone as yardstick. {counting} weights were changed by 1 % where that moves an output by a "
        f"thousandth: {len(blind)} changes were not noticed.",
        "",
        "Layers drawn: " + ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) + ".",
    ]
    for state in (REFUSED, UNPROVEN, SENSELESS, FAULT):
        found = [outcome for outcome in outcomes if outcome.state == state]
        if found:
            lines += ["", f"## {state.capitalize()}", ""]
            lines += [
                f"- {outcome.where}: {_sentence(outcome.reason)}\n  `{outcome.recipe.text()}`" for outcome in found
            ]
    if blind:
        lines += ["", "## Not noticed", "", *(f"- {item}" for item in blind)]
    return "\n".join(lines) + "\n"


def _sentence(reason: str) -> str:
    return " ".join(line.strip() for line in reason.strip().splitlines()[-3:])[:400]


if __name__ == "__main__":
    sys.exit(main())
