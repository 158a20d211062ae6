// SPDX-License-Identifier: MIT
// The tuning table: what `tern tune` measured on this machine. A context that finds one chooses layouts of ternary weights by it.
//
// A context reads one table, once, at creation (tern_context_params.tune, else $TERN_TUNE, else the user's cache folder). A file
// that is damaged, or of another CPU or version, is ignored; tern_context_warning() tells. Nothing but tern_tune_save() and
// tern_tune_clear() writes.
#ifndef TERN_TUNE_H
#define TERN_TUNE_H

#include "matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

// One measured product: m tokens with a ternary weight of n x k.
typedef struct tern_tune_result {
    size_t struct_size;
    size_t n, k;
    size_t scale_block;                // of block-scaled weights; 0: one scale, or one per row
    size_t m;                          // tokens
    int cached;                        // nonzero: the weight was in cache; 0: it came from DRAM
    const char *layout;                // as tern_variant_info names it, e.g. "m2"; static where Tern writes it
    double multiply_adds_per_second;   // m * n * k / time
} tern_tune_result;

// Where this context's table lies, whether or not there is a file; "" where the context was made without one ("off", or neither
// XDG_CACHE_HOME nor HOME is set). Valid as long as the context.
TERN_API const char *tern_tune_path(const tern_context *ctx);

// The results that this context read for its CPU, tier and (nearest) number of threads, in the order of the file.
TERN_API size_t tern_tune_count(const tern_context *ctx);
TERN_API tern_status tern_tune_get(tern_context *ctx, size_t index, tern_tune_result *result); // Errors: ARG (index)

// Writes results for this context's CPU, tier and number of threads. Results already in the file stay, except those of the same
// case (n, k, scale_block, m, cached) and those of another version on this machine. The file is replaced at once (rename), and
// its folders are made; of two writers at once the later one's file stays. Contexts that exist do not change. results: n of them, all
// with the struct_size of the first. Errors: ARG (a value out of range, unknown layout, too many results), STATE (no path), IO (also
// where the path holds something that is not a tuning table: that stays), MEMORY.
TERN_API tern_status tern_tune_save(tern_context *ctx, const tern_tune_result *results, size_t n);

// Removes the file; OK if there is none. Errors: STATE (no path), IO (as for tern_tune_save), MEMORY.
TERN_API tern_status tern_tune_clear(tern_context *ctx);

#ifdef __cplusplus
}
#endif
#endif
