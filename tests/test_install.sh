#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# An installed Tern can be used from outside the tree: find_package and pkg-config, shared and static.
# usage: test_install.sh SOURCE_DIR BUILD_DIR C_COMPILER {decode|nodecode}
set -euo pipefail
source=$1 build=$2 cc=$3 decode=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

# A prefix chosen at install time, with a space in it, moved afterwards: nothing installed may remember a path.
cmake --install "$build" --prefix "$work/first" >"$work/install.log" || { cat "$work/install.log"; fail "cmake --install"; }
prefix="$work/moved prefix"
mv "$work/first" "$prefix"

expect() { [ -e "$prefix/$1" ] || fail "$1 is not installed"; }
lib=$(cd "$prefix" && dirname "$(find . -name libtern.a | head -n 1)")
for file in include/tern/{tern,matmul,diagnostics}.h "$lib"/libtern.{a,so} "$lib/pkgconfig/tern.pc" "$lib"/cmake/tern/ternConfig{,Version}.cmake; do
    expect "$file"
done
if [ "$decode" = decode ]; then
    expect include/tern/decode.h
    expect share/man/man1/tern.1
    "$prefix/bin/tern" --version || fail "bin/tern"
else
    [ ! -e "$prefix/include/tern/decode.h" ] || fail "decode.h is installed without the decode part"
    ! readelf -d "$prefix/$lib/libtern.so" | grep -q pcre || fail "a library without the decode part needs PCRE2"
    ! grep -q pcre "$prefix/$lib/pkgconfig/tern.pc" || fail "tern.pc names PCRE2 without the decode part"
fi
if grep -rlIF "$source" "$prefix"; then fail "the files above name the source folder"; fi

links_libtern() { readelf -d "$1" | grep -q 'NEEDED.*libtern\.so'; }
check_shared() { # PROGRAM: runs, and needs libtern.so and none of its private dependencies
    LD_LIBRARY_PATH="$prefix/$lib" "$1" || fail "$1"
    links_libtern "$1" || fail "$1 does not link the shared library"
    ! readelf -d "$1" | grep -E 'NEEDED.*(hwloc|pcre)' || fail "$1 links a private dependency of the shared library"
}
check_static() { # PROGRAM: runs, and does not need libtern.so
    "$1" || fail "$1"
    ! links_libtern "$1" || fail "$1 links the shared library"
}

cmake -S "$source/tests/consumer" -B "$work/cmake" -G Ninja -DCMAKE_C_COMPILER="$cc" -DCMAKE_PREFIX_PATH="$prefix" >"$work/cmake.log" 2>&1 ||
    { cat "$work/cmake.log"; fail "find_package(tern)"; }
cmake --build "$work/cmake" >"$work/cmake.log" 2>&1 || { cat "$work/cmake.log"; fail "consumer with CMake"; }
check_shared "$work/cmake/consumer_shared"
check_shared "$work/cmake/consumer_tern"
check_static "$work/cmake/consumer_static"

export PKG_CONFIG_PATH="$prefix/$lib/pkgconfig"
[ "$(pkg-config --modversion tern)" = "$(sed -n 's/^project(tern VERSION \([0-9.]*\).*/\1/p' "$source/CMakeLists.txt")" ] || fail "version in tern.pc"
flags() { pkg-config --cflags --libs "$@" tern | xargs -n 1; } # one flag a line; xargs undoes the escaped space of the prefix
mapfile -t shared < <(flags)
mapfile -t static < <(flags --static | sed 's/^-ltern$/-l:libtern.a/')
"$cc" -o "$work/pc_shared" "$source/tests/consumer/consumer.c" "${shared[@]}"
check_shared "$work/pc_shared"
"$cc" -o "$work/pc_static" "$source/tests/consumer/consumer.c" "${static[@]}"
check_static "$work/pc_static"
