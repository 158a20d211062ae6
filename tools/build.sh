# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Sourced by test.sh and demo.sh from the repository root: build_release, which is quiet unless the build fails.
# Arguments go to cmake --build, e.g. --target tern.

build_release() {
    local log=build/build.log
    printf 'build: build/release\n'
    if ! { cmake --preset release && cmake --build --preset release "$@"; } >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        printf 'build: failed (all of its output: %s)\n' "$log" >&2
        return 1
    fi
}
