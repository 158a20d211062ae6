#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures everything that docs/performance.md shows and writes it there, with its plots. About 35 minutes on a quiet machine.
# Exit code 1: something was not measured or not written; the page says what.
# usage: tools/performance.sh [options of tools/compare_kernels.py, such as --peer-python and --peer-source]
set -euo pipefail
case ${1-} in -h | --help) sed -n '3,5s/^# //p' "$0"; exit ;; esac
cd "$(dirname "$0")/.."

out=build/performance
python=build/venv/bin/python3
# Awkward shapes and what they round up to: kernel_report.py compares them in pairs.
awkward=(5460x2048 5504x2048 641x2561 704x2624 4096x4097 4096x4160 1x4096 64x4096 63x7 64x64)
tokens=$(seq -s, 1 33) # each is compared with the one before

mkdir -p "$out"
rm -f "$out"/*.json # a figure that is missing is not an old one
gaps=0
"$python" tools/compare_kernels.py --json "$out/kernels.json" "$@" | tee "$out/kernels.txt" || gaps=1
[ -e "$out/kernels.json" ] || exit 1
benches=()
for threads in 1 2; do
    build/release/tern bench -t "$threads" --json >"$out/bench_$threads.json"
    for op in lut_gemm mad_gemm; do
        json=$out/tokens_${threads}_$op.json
        build/release/tern bench -t "$threads" --op "$op" --m "$tokens" --shape 4096x4096 --block 0 --residency hot --json >"$json"
        benches+=("$json")
        for first in 0 4 8; do # --shape takes a few at a time; a pair stays in one run
            args=()
            for shape in "${awkward[@]:first:4}"; do args+=(--shape "$shape"); done
            json=$out/awkward_${threads}_${op}_$first.json
            build/release/tern bench -t "$threads" --op "$op" --m 1 --block 0 --residency hot "${args[@]}" --json >"$json"
            benches+=("$json")
        done
    done
    benches=("$out/bench_$threads.json" "${benches[@]}")
done
"$python" tools/kernel_report.py --kernels "$out/kernels.json" --bench "${benches[@]}" --plot docs/performance.svg --document docs/performance.md || gaps=1

runs=()
for run in 1 2 3; do
    build/release/tern_sched_bench --json >"$out/sched_$run.json"
    runs+=("$out/sched_$run.json")
done
"$python" tools/sched_report.py "${runs[@]}" --document docs/performance.md

peers=() # the words after --peer-python, which both comparisons take
for word in "$@"; do
    case $word in
    --peer-python) taken=1 ;;
    --*) taken=0 ;;
    esac
    if [ "${taken:-0}" = 1 ]; then peers+=("$word"); fi
done
"$python" tools/compare_engines.py "${peers[@]}" --json "$out/engines.json" --plot docs/decode.svg --document docs/performance.md |
    tee "$out/engines.txt" || gaps=1
[ "$gaps" = 0 ] || echo "performance.sh: not everything was measured; the messages above and docs/performance.md say what" >&2
exit "$gaps"
