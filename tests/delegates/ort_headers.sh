#!/usr/bin/env bash
# Usage: ort_headers.sh FOLDER. The headers of ONNX Runtime's C++ API, which no wheel brings, without root: downloads
# Debian 13's libonnxruntime-dev, and unpacks them into FOLDER. A program that is compiled with older headers runs with
# newer libraries.
set -euo pipefail

mkdir -p "$1"
root=$(cd "$1" && pwd)
[ -s "$root/onnxruntime_cxx_api.h" ] && exit

mkdir -p "$root"/apt/{lists,cache/archives}/partial
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN:-http://deb.debian.org/debian} trixie main" \
    >"$root/apt/sources.list"
# Nothing of the machine's own apt is read or changed.
touch "$root/apt/status"
apt=(apt-get -qq -o "Dir::Etc::SourceList=$root/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$root/apt/lists" -o "Dir::State::Status=$root/apt/status" -o "Dir::Cache=$root/apt/cache"
    -o Debug::NoLocking=1 -o APT::Sandbox::User=)
"${apt[@]}" update
(cd "$root/apt" && "${apt[@]}" download libonnxruntime-dev)
dpkg-deb -x "$root"/apt/libonnxruntime-dev_*.deb "$root/apt/tree"
mv "$root"/apt/tree/usr/include/onnxruntime/*.h "$root"
rm -r "$root/apt"
