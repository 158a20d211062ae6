#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Installs what Tern needs to build and to test: Debian packages, and Python packages in build/venv. Quiet when all is there.
# usage: tools/setup.sh
set -euo pipefail
[ $# -eq 0 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."

# Compiler and build; what the library links; what the tests and benchmarks link; what the scripts run.
packages=(
    gcc g++ libc6-dev binutils cmake ninja-build pkgconf
    libhwloc-dev libpcre2-dev libjansson-dev libedit-dev
    libcmocka-dev libbenchmark-dev llvm-16 spin
    ca-certificates python3 python3-pip python3-venv qemu-user
)
venv=build/venv
requirements=tools/requirements.txt

say() { printf 'setup: %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

# Prints those of $packages that are not installed.
missing_packages() {
    dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null |
        sed -n 's/^installed //p' | sort | comm -13 - <(printf '%s\n' "${packages[@]}" | sort)
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null ||
            die "these packages are missing and there is no sudo; as root, run: apt-get install -y --no-install-recommends ${missing[*]}"
        as_root=(sudo)
    fi
    say "installing Debian packages: ${missing[*]}"
    local log=build/setup.log
    if ! { "${as_root[@]}" apt-get update -q &&
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "apt-get failed (all of its output: $log)"
    fi
}

# The stamp holds the requirements and the interpreter that the venv was made from.
install_venv() {
    local stamp=$venv/tern.stamp want
    want=$(cat "$requirements" && python3 --version)
    [ "$(cat "$stamp" 2>/dev/null)" != "$want" ] || return 0
    # venv --clear would empty the folder behind a link, which may belong to somebody else.
    [ ! -L "$venv" ] || die "$venv is a link to $(readlink "$venv"), which this script will not change; remove the link and run this again"
    say "installing Python packages in $venv: $(grep -v '^#' "$requirements" | tr '\n' ' ')"
    rm -f "$stamp"
    local log=build/setup.log
    if ! { python3 -m venv --clear "$venv" &&
        "$venv/bin/python3" -m pip install --disable-pip-version-check -r "$requirements"; } >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        die "the Python packages could not be installed (all of the output: $log)"
    fi
    printf '%s\n' "$want" >"$stamp"
}

mkdir -p build
command -v dpkg-query >/dev/null ||
    die "this is not a Debian system; install what these Debian packages contain, then build with cmake --preset release: ${packages[*]}"
install_packages
install_venv
