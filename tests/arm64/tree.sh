#!/usr/bin/env bash
# Usage: tree.sh FOLDER. A Debian 12 for 64-bit ARM to run programs in, without root and without changing this machine:
# FOLDER/qemu-aarch64 (from Debian's backports: that of Debian 12 itself, 7.2, crashes), FOLDER/debian (Python and the
# libraries of C and C++, unpacked), and for each runtime a folder of its wheels, with numpy: FOLDER/onnxruntime,
# FOLDER/ai-edge-litert, FOLDER/tflite-runtime. Leaves when all of it is there. 400 MB.
set -euo pipefail

mkdir -p "$1"
root=$(cd "$1" && pwd)
[ -e "$root/ready" ] && exit

# packages NAME ARCHITECTURE SUITE PACKAGE...: downloads them and what they need into $root/downloads/NAME/archives.
packages() {
    local here=$root/downloads/$1 suites="bookworm bookworm-updates" suite
    [ "$3" = bookworm ] || suites="$suites $3"
    mkdir -p "$here"/{lists,archives}/partial
    for suite in $suites; do
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN:-http://deb.debian.org/debian} $suite main"
    done >"$here/sources.list"
    : >"$here/status" # nothing is installed: all that is needed comes along
    local apt=(apt-get -qq -o "Dir::Etc::SourceList=$here/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$here/lists" -o "Dir::State::status=$here/status" -o "Dir::Cache=$here"
        -o Debug::NoLocking=1 -o APT::Sandbox::User= -o "APT::Architecture=$2" -o "APT::Architectures=$2")
    "${apt[@]}" update
    "${apt[@]}" install --download-only -y --no-install-recommends -t "$3" "${@:4}"
}

# wheels FOLDER REQUIREMENT...: those for ARM and the Python of that Debian.
wheels() {
    local platforms=() release
    for release in 17 27 28 31 34; do # of the C library that a wheel wants; Debian 12 has 36
        platforms+=(--platform "manylinux_2_${release}_aarch64")
    done
    rm -rf "${root:?}/$1"
    "${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --root-user-action ignore --target "$root/$1" \
        "${platforms[@]}" --platform manylinux2014_aarch64 --implementation cp --python-version 3.11 --abi cp311 \
        --only-binary=:all: "${@:2}"
}

packages debian arm64 bookworm python3.11 libstdc++6
for package in "$root"/downloads/debian/archives/*.deb; do
    dpkg-deb -x "$package" "$root/debian"
done
packages qemu "$(dpkg --print-architecture)" bookworm-backports qemu-user
dpkg-deb --fsys-tarfile "$root"/downloads/qemu/archives/qemu-user_*.deb | tar -x -O ./usr/bin/qemu-aarch64 >"$root/qemu-aarch64"
chmod +x "$root/qemu-aarch64"
rm -r "$root/downloads"

wheels onnxruntime onnxruntime
wheels ai-edge-litert ai-edge-litert
wheels tflite-runtime tflite-runtime "numpy<2"
touch "$root/ready"
