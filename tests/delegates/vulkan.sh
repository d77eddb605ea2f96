#!/usr/bin/env bash
# Usage: vulkan.sh FOLDER. Software Vulkan (Mesa's llvmpipe) for Debian 12 without root: downloads what this machine lacks
# of mesa-vulkan-drivers from Debian's backports, the drivers of Debian 12 itself being too old for WebGPU, unpacks it
# under FOLDER, and writes FOLDER/env, to be read by the shell before Python starts.
set -euo pipefail

mkdir -p "$1"
root=$(cd "$1" && pwd)
[ -s "$root/env" ] && exit

mkdir -p "$root"/{lists,cache/archives}/partial "$root/tree"
for suite in bookworm bookworm-updates bookworm-backports; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN:-http://deb.debian.org/debian} $suite main"
done >"$root/sources.list"
# The machine's list of installed packages, and nothing else of its apt, is read; nothing of it is changed.
apt=(apt-get -qq -o "Dir::Etc::SourceList=$root/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$root/lists" -o "Dir::Cache=$root/cache" -o Debug::NoLocking=1 -o APT::Sandbox::User=)
"${apt[@]}" update
"${apt[@]}" install --download-only --reinstall -y --no-install-recommends -t bookworm-backports \
    mesa-vulkan-drivers libvulkan1
for package in "$root"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$root/tree"
done
rm -r "$root/cache" "$root/lists"

libraries=$(dirname "$(find "$root/tree" -name libvulkan_lvp.so)")
cat >"$root/env.new" <<END
export LD_LIBRARY_PATH=$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
export VK_DRIVER_FILES=$root/tree/usr/share/vulkan/icd.d/lvp_icd.json VK_ICD_FILENAMES=$root/tree/usr/share/vulkan/icd.d/lvp_icd.json
export ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1
END
mv "$root/env.new" "$root/env"
