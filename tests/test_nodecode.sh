#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# -DTERN_DECODE=OFF configures, builds and installs a library that knows nothing of PCRE2, for engines that only want the product.
# usage: test_nodecode.sh SOURCE_DIR BUILD_DIR C_COMPILER
set -euo pipefail
source=$1 build=$2/nodecode cc=$3
here=$(dirname "$0")
# -O1: what is checked is what is in the library, not its speed.
cmake -S "$source" -B "$build" -G Ninja -DCMAKE_C_COMPILER="$cc" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG=-O1 \
    -DTERN_DECODE=OFF -DTERN_TESTS=OFF -DTERN_BENCH=OFF
if grep '^PCRE2_' "$build/CMakeCache.txt"; then
    echo "FAILED: configuring without the decode part looked for PCRE2" >&2
    exit 1
fi
cmake --build "$build"
python3 "$here/check_exports.py" "$source" "$build/libtern.so" nodecode
"$here/test_install.sh" "$source" "$build" "$cc" nodecode
