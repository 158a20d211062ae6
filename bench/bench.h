// SPDX-License-Identifier: MIT
// The benchmarks' groups: whole products through the public API, the kernels of single stages, packing.
#ifndef TERN_BENCH_BENCH_H
#define TERN_BENCH_BENCH_H

#include <stddef.h>

#include <tern/diagnostics.h>

enum { BENCH_NAME_MAX = 128 };

// Both register one benchmark for each variant that ctx may run, shape and residency: stage/variant/shape/residency.
// The variant's name is its symbol without "tern_<stage>_".
void bench_register_products(tern_context *ctx); // every stage that multiplies; all threads
void bench_register_stages(tern_context *ctx);   // quantize, lut_build, rmsnorm, silu_mul, attention; one thread, hot
void bench_release_products(void);
void bench_register_pack(tern_context *ctx); // TQ2_0 to each form; all threads
void bench_release_pack(void);

// The variant with this symbol if ctx may run it; returns 0 if not.
int bench_find_variant(tern_context *ctx, const char *symbol, tern_variant_info *info);
// stage/variant/shape/residency into name.
void bench_name(char name[BENCH_NAME_MAX], const tern_variant_info *info, const char *shape, const char *residency);

double bench_seconds(void); // monotonic

#endif
