#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each public header compiles on its own and twice, as strict C11 and as C++11, with the warnings a careful user turns on.
# usage: check_headers.sh SOURCE_DIR C_COMPILER CXX_COMPILER
set -euo pipefail
source=$1 cc=$2 cxx=$3
flags=(-Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror -fsyntax-only -I "$source/include")
for path in "$source"/include/tern/*.h; do
    header=tern/$(basename "$path")
    text="#include <$header>"$'\n'"#include <$header>"$'\n'
    "$cc" -std=c11 "${flags[@]}" -x c - <<<"$text" || { echo "FAILED: $header as C11" >&2; exit 1; }
    "$cxx" -std=c++11 "${flags[@]}" -x c++ - <<<"$text" || { echo "FAILED: $header as C++11" >&2; exit 1; }
    echo "$header: C11 and C++11"
done
