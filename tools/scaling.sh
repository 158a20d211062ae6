#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Measures this machine and predicts larger ones from it: the tables and the plot of docs/scaling.md. About three minutes.
# usage: tools/scaling.sh MODEL.gguf   (SmolLM2-135M, as tools/fetch_model.sh has it)
set -euo pipefail
[ $# -eq 1 ] && [[ $1 != -* ]] || { sed -n '3,4s/^# //p' "$0" >&2; exit 2; }
[ -r "$1" ] || { printf 'scaling: %s cannot be read; tools/fetch_model.sh gets the model\n' "$1" >&2; exit 1; }
model=$(realpath "$1")
cd "$(dirname "$0")/.."

out=build/scaling
python=build/venv/bin/python3
layers=2 # of the 30: their stages are alike
mkdir -p "$out"
[ -e "$out/bitnet-2b.gguf" ] || "$python" tools/make_model.py --shape bitnet-2b --layers "$layers" "$out/bitnet-2b.gguf"
ln -sfn "$model" "$out/smollm2-135m.gguf"
for name in bitnet-2b smollm2-135m; do build/release/tern_scale_bench "$out/$name.gguf" >"$out/$name.json"; done
"$python" tools/scaling_report.py "$out/bitnet-2b.json" "$out/smollm2-135m.json" --layers bitnet-2b.gguf=30 --plot docs/scaling.svg --document docs/scaling.md
