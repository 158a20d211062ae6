#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# From a fresh clone to text: builds Tern, fetches a small model, lets it answer, and measures the kernels on this machine.
# usage: tools/demo.sh [QUESTION]
set -euo pipefail
case ${1-} in -*) sed -n '3,4s/^# //p' "$0" >&2; exit 2 ;; esac
cd "$(dirname "$0")/.."
question=${1:-Why is the sky blue?}
tools/setup.sh
. tools/build.sh
build_release --target tern
tools/fetch_model.sh

tern=build/release/tern
printf '\n> %s\n' "$question"
"$tern" generate -m build/models/SmolLM2-135M-Instruct.Q4_1.gguf --chat -p "$question" -n 60
printf '\nThe ternary kernels against the limits of this machine, measured now:\n\n'
"$tern" bench --quick
