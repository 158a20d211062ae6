#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds the scheduler's tests with ThreadSanitizer and runs them, without suppressions: about two minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tests=(test_pool test_pool_stress test_pool_stalls test_share test_trace test_callers_threads)
cmake --preset tsan >/dev/null
cmake --build build/tsan --target "${tests[@]}" >build/test_threads.log 2>&1 || { tail -n 40 build/test_threads.log >&2; exit 1; }
pattern=$(IFS='|'; echo "${tests[*]}")
ctest --test-dir build/tsan --output-on-failure -R "^($pattern)\$"
