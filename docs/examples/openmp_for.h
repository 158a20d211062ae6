// SPDX-License-Identifier: MIT
// A parallel_for over OpenMP, to copy; compile with -fopenmp.
//   static int threads = 8;
//   tern_context_params params = {.struct_size = sizeof params, .threads = threads,
//                                 .parallel_for = openmp_for, .parallel_for_user = &threads};
#ifndef OPENMP_FOR_H
#define OPENMP_FOR_H

#include <tern/tern.h>

// A tern_parallel_for_fn; user points to the number of threads. static: thread i takes the same tiles of a weight each time, so
// they stay in its caches and on its memory; dynamic is better where the threads share their cores with others.
static inline void openmp_for(void *user, tern_tile_fn fn, void *arg, size_t n_tiles) {
    const int threads = *(const int *)user;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (size_t tile = 0; tile < n_tiles; tile++) fn(arg, tile);
}

#endif
