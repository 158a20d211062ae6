#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The C programs of a page (```c) compile without warnings, run, and print what stands below them (```text).
# usage: check_examples.sh SOURCE_DIR PAGE LIBRARY CC [FLAG...]
set -euo pipefail
[ $# -ge 4 ] || { sed -n '4p' "$0" >&2; exit 2; }
source=$1 page=$2 library=$3 cc=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk -v work="$work" '/^```c$/ { out = sprintf("%s/%d.c", work, ++n); next } /^```text$/ { out = sprintf("%s/%d.text", work, n); next }
                     /^```/ { out = "" } out { print >out }' "$source/$page"
programs=("$work"/*.c)
[ -e "${programs[0]}" ] || { echo "$page has no C program" >&2; exit 1; }
for program in "${programs[@]}"; do
    name=${program%.c}
    "$cc" -std=c11 -Wall -Wextra -Werror -pthread -I"$source/include" -I"$source/docs/examples" "$program" "$library" "$@" -o "$name"
    "$name" >"$name.printed" || { echo "$page: program $(basename "$name") failed" >&2; exit 1; }
    diff "$name.text" "$name.printed" || { echo "$page: program $(basename "$name") printed the right side, not the left" >&2; exit 1; }
done
