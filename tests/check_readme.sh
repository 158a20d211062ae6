#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The README's C example compiles without warnings, runs, and prints what the arithmetic says.
# usage: check_readme.sh SOURCE_DIR LIBRARY CC [LINK FLAG...]
set -euo pipefail
[ $# -ge 3 ] || { sed -n '4p' "$0" >&2; exit 2; }
source=$1 library=$2 cc=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
awk '/^```c$/ { on = 1; next } /^```$/ { on = 0 } on' "$source/README.md" >"$work/example.c"
[ -s "$work/example.c" ] || { echo "README.md has no C example" >&2; exit 1; }
"$cc" -std=c11 -Wall -Wextra -Werror -I"$source/include" "$work/example.c" "$library" "$@" -o "$work/example"
printed=$("$work/example")
# x is quantized to 8 bits (1, 2, 3, 4, 5 at a step of 5/127), so the results lie within 0.05 of 1, 0 and -7.5.
echo "$printed" | awk '{ exit !(($1 - 1) ^ 2 < 0.0025 && $2 ^ 2 < 0.0025 && ($3 + 7.5) ^ 2 < 0.0025) }' ||
    { echo "the example printed \"$printed\", not about 1.00 0.00 -7.50" >&2; exit 1; }
