#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Checks that greedy text is the same on every CPU tier and thread count, on this CPU and on older ones that qemu-user emulates.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: tools/test_tiers.sh -m MODEL [-p PROMPT] [-n N] [--qemu-n N] [--tern PATH]

Runs `tern generate` greedily natively with each TERN_ISA this CPU has and 1, 2 and 5 threads, and `tern info` and `tern generate` under
qemu-x86_64 as a Nehalem (no AVX2: scalar tier) and as a Haswell (avx2 tier). Fails with a diff where a text differs.

  -m MODEL     GGUF file (tools/fetch_model.sh gets one)
  -p PROMPT    default: "The capital of France is"
  -n N         tokens of a native run (default 24)
  --qemu-n N   tokens of an emulated run, about 50 times slower (default 6)
  --tern PATH  the command (default build/release/tern)
TEXT
}

say() { printf 'test_tiers: %s\n' "$*"; }
die() { printf 'test_tiers: %s\n' "$*" >&2; exit 1; }

root=$(cd "$(dirname "$0")/.." && pwd)
tern=$root/build/release/tern
model=
prompt='The capital of France is'
tokens=24
qemu_tokens=6
while [ $# -gt 0 ]; do
    case $1 in
    -m | -p | -n | --qemu-n | --tern) [ $# -ge 2 ] || { usage >&2; die "$1 needs a value"; } ;;&
    -m) model=$2; shift 2 ;;
    -p) prompt=$2; shift 2 ;;
    -n) tokens=$2; shift 2 ;;
    --qemu-n) qemu_tokens=$2; shift 2 ;;
    --tern) tern=$2; shift 2 ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; die "unknown argument $1" ;;
    esac
done
[ -n "$model" ] || { usage >&2; die "no model given; get one with tools/fetch_model.sh"; }
[ -f "$model" ] || die "$model: no such file; get a model with tools/fetch_model.sh"
[ -x "$tern" ] || die "$tern is missing; run: cmake --preset release && cmake --build build/release"
for count in "$tokens" "$qemu_tokens"; do
    [[ $count =~ ^[1-9][0-9]*$ ]] || die "$count is not a number of tokens"
done
for needed in qemu-x86_64:qemu-user python3:python3; do
    command -v "${needed%%:*}" >/dev/null || die "${needed%%:*} is missing; as root, run: apt-get install -y ${needed##*:}"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

json_key() { python3 -c 'import json, sys; sys.stdout.write(str(json.load(sys.stdin)[sys.argv[1]]))' "$1"; }

# text_of FILE N THREADS COMMAND...: greedy text of N tokens in FILE; COMMAND is tern, perhaps behind an emulator.
text_of() {
    local file=$1 n=$2 threads=$3
    shift 3
    "$@" generate -m "$model" -p "$prompt" -n "$n" --temp 0 -t "$threads" --json >"$file.json" 2>"$file.err" || {
        say "failed: $* generate -t $threads (exit code $?):"
        tail -n 5 "$file.err"
        return 1
    }
    json_key text <"$file.json" >"$file"
}

# compare NAME EXPECTED GOT
compare() {
    if cmp -s "$2" "$3"; then
        say "same text: $1"
    else
        say "DIFFERENT TEXT: $1"
        diff -u --label expected "$2" --label "$1" "$3" || true
        failed=1
    fi
}

# check NAME N THREADS COMMAND...: against the first native run of N tokens.
check() {
    local name=$1 n=$2
    local out=$work/${name//[^a-zA-Z0-9]/_} expected=$work/expected.$n
    shift
    text_of "$out" "$@" || { failed=1; return 0; }
    if [ ! -f "$expected" ]; then
        cp "$out" "$expected"
        [ -s "$expected" ] || { say "EMPTY TEXT: $name"; failed=1; }
        say "reference: $name: $(head -c 100 "$expected" | tr '\n' ' ')"
    else
        compare "$name" "$expected" "$out"
    fi
}

started=$SECONDS
for isa in scalar avx2 avx512 avx512vnni avx512vbmi; do
    if ! TERN_ISA=$isa "$tern" info --json >/dev/null 2>"$work/refused"; then
        say "native $isa: not on this CPU ($(head -n 1 "$work/refused"))"
        continue
    fi
    for threads in 1 2 5; do
        TERN_ISA=$isa check "native $isa, threads $threads" "$tokens" "$threads" "$tern"
    done
done
check "native, reference for qemu" "$qemu_tokens" 1 "$tern"
for cpu in Nehalem:scalar Haswell:avx2; do
    emulated=(qemu-x86_64 -cpu "${cpu%%:*}" "$tern")
    "${emulated[@]}" info >"$work/info" 2>"$work/info.err" || {
        say "failed: ${emulated[*]} info (exit code $?):"
        tail -n 5 "$work/info.err"
        failed=1
    }
    for threads in 1 2; do
        check "qemu ${cpu%%:*} (${cpu##*:}), threads $threads" "$qemu_tokens" "$threads" "${emulated[@]}"
    done
    tier_used=$(python3 -c 'import json, sys; print(" ".join(sorted(set(json.load(sys.stdin)["kernels"].values()))))' \
        <"$work/qemu_${cpu%%:*}__${cpu##*:}___threads_1.json" 2>/dev/null || true)
    [[ " $tier_used " == *"${cpu##*:}"* && ( ${cpu##*:} != scalar || $tier_used != *avx* ) ]] || {
        say "WRONG TIER under qemu ${cpu%%:*}: expected ${cpu##*:}, ran: $tier_used"
        failed=1
    }
done
[ "$failed" -eq 0 ] || die "some runs failed or differ (above)"
say "all texts are identical ($((SECONDS - started)) s)"
