#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Runs the kernel tests where every AVX-512 variant runs: natively if this CPU has them all, otherwise on an emulated Tiger Lake.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/test_avx512.sh [--native | --emulated] [TEST...]

TEST is the name of a test binary below build/release/tests (default: the test_*_direct).
Under emulation long sweeps run a random share of their cases: TERN_TEST_SCALE (default 0.02). TERN_TEST_SEED repeats a run.
TERN_TEST_TIMEOUT is the limit for each test in seconds (default 1800).
TEXT
}

say() { printf 'test_avx512: %s\n' "$*"; }
die() { printf 'test_avx512: %s\n' "$*" >&2; exit 1; }

cd "$(dirname "$0")/.."
build=build/release
where=
tests=()
for argument; do
    case $argument in
    --native | --emulated) where=${argument#--} ;;
    --help | -h) usage; exit 0 ;;
    -*) usage >&2; die "unknown option $argument" ;;
    *) tests+=("$argument") ;;
    esac
done
[ ${#tests[@]} -gt 0 ] || tests=(test_quantize_direct test_epilogue_direct test_int8_direct test_int6_direct test_int4_direct test_vector_direct test_ternary_direct test_mad_direct)
for test in "${tests[@]}"; do
    [ -x "$build/tests/$test" ] || die "$build/tests/$test is missing; run: cmake --preset release && cmake --build build/release"
done

mkdir -p build/emu
probe=build/emu/avx512_probe
"${CC:-cc}" -O2 -mavx512f -mavx512bw -mavx512vbmi -mavx512vnni tests/emulation/avx512_probe.c -o "$probe"
if [ -z "$where" ]; then
    where=emulated
    ! "$probe" >/dev/null 2>&1 || where=native
fi

run=()
if [ "$where" = emulated ]; then
    export TERN_TEST_SCALE=${TERN_TEST_SCALE:-0.02}
    run=(tools/run_avx512.sh --timeout "${TERN_TEST_TIMEOUT:-1800}" --)
    say "emulated Tiger Lake, TERN_TEST_SCALE=$TERN_TEST_SCALE"
else
    say "native"
fi

"${run[@]}" "$probe" || die "the AVX-512 probe failed ($where): this CPU or emulator cannot be trusted with the tests"
failed=()
for test in "${tests[@]}"; do
    say "$test"
    started=$SECONDS
    "${run[@]}" "$build/tests/$test" || failed+=("$test (exit code $?)")
    say "$test took $((SECONDS - started)) s"
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
say "passed: ${tests[*]}"
