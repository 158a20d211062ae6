#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds Tern and runs all tests. The last lines are ctest's own.
# usage: tools/test.sh
set -euo pipefail
[ $# -eq 0 ] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
cd "$(dirname "$0")/.."
tools/setup.sh
. tools/build.sh
build_release --target all
exec ctest --preset release --output-on-failure
