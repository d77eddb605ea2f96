"""A stand-in for `adb` and the Android device behind it. NO DEVICE IS TESTED WITH IT: its shell is this machine's `sh`
in a folder, its benchmark binary prints what a test tells it to, and what both say is worded as the sources of adb,
Android's shell and the real binaries word it.

It records every call: `Fake.adb` (arguments of adb) and `Fake.benchmark` (arguments of the binary).
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

ONE = "List of devices attached\nR58M\tdevice\n\n"

ADB = """#!{python} -IS
import json, os, sys
root, words = {root!r}, sys.argv[1:]
with open(root + "/adb.jsonl", "a") as file:
    print(json.dumps(words), file=file)
said = json.load(open(root + "/said.json"))
if words == ["devices"]:
    sys.stderr.write("* daemon not running; starting now at tcp:5037\\n* daemon started successfully\\n")
    sys.stdout.write(said["devices"])
    sys.exit()
assert words[:2] == ["-s", "R58M"], words
there = lambda text: text.replace("/data/local/tmp", root + "/device")
if words[2] == "push":
    source, target = words[3], there(words[4])
    if said["full"]:
        sys.exit("adb: error: failed to copy: remote couldn't create file: No space left on device")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if target.endswith("/benchmark"):
        open(target, "w").write(open(root + "/benchmark").read())
    else:
        open(target, "wb").write(open(source, "rb").read())
elif words[2] == "pull":
    if not os.path.exists(there(words[3])):
        sys.exit("adb: error: failed to stat remote object '" + words[3] + "': No such file or directory")
    open(words[4], "wb").write(open(there(words[3]), "rb").read())
elif words[2] == "shell":
    properties = "getprop() {{ case $1 in *model) echo Pixel 8;; *release) echo 15;; *abi) echo arm64-v8a;; esac; }}; "
    os.execvp("sh", ["sh", "-c", properties + there(words[3])])
"""

BENCHMARK = """#!{python} -IS
import json, os, sys, time
root, words = {root!r}, sys.argv[1:]
with open(root + "/benchmark.jsonl", "a") as file:
    print(json.dumps(words), file=file)
said = json.load(open(root + "/said.json"))
time.sleep(said["sleep"])
asked = [word.partition("=")[2] for word in words if word.startswith("--output_filepath=")]
if asked and os.path.exists(root + "/outputs"):
    with open(asked[0], "wb") as file:
        file.write(open(root + "/outputs", "rb").read())
if "-p" in words:
    with open(words[words.index("-p") + 1] + "_2026-11-23.json", "w") as file:
        file.write(open(root + "/profile.json").read())
print(said["ops"] if "--enable_op_profiling=true" in words else said["timed"])
sys.exit(said["code"])
"""


class Fake:
    """`adb` in a folder that a test puts on the PATH, with the device R58M. said: what it is to answer."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said = {"devices": ONE, "timed": "", "ops": "", "code": 0, "sleep": 0, "full": False}
        self.path = root / "bin"
        (root / "device").mkdir(parents=True)
        self.path.mkdir()
        for name, script in {"bin/adb": ADB, "benchmark": BENCHMARK}.items():
            (root / name).write_text(script.format(python=sys.executable, root=str(root)), encoding="utf-8")
        (self.path / "adb").chmod(0o755)
        self.says()

    def says(self, **said: object) -> None:
        self.said |= said
        (self.root / "said.json").write_text(json.dumps(self.said), encoding="utf-8")

    @property
    def adb(self) -> list[list[str]]:
        return self._recorded("adb")

    @property
    def benchmark(self) -> list[list[str]]:
        return self._recorded("benchmark")

    @property
    def left(self) -> list[str]:
        """What lies on the device."""
        return os.listdir(self.root / "device")

    def _recorded(self, name: str) -> list[list[str]]:
        path = self.root / f"{name}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
