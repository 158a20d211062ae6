// SPDX-License-Identifier: MIT
// Which bytes of a weight which worker reads, and so on which NUMA node they should lie.
#ifndef TERN_MATMUL_PLACEMENT_H
#define TERN_MATMUL_PLACEMENT_H

#include "matmul/weights.h"

// Codes that the workers of one node read.
typedef struct tern_node_range {
    uint8_t *first;
    size_t bytes;
    int node;
} tern_node_range;

// Calls fn for the codes of each run of neighbouring workers of one node, slice after slice: all codes once, in ascending
// order. The workers are those of the sharing. Pages are the caller's care.
typedef void tern_node_range_fn(void *user, tern_node_range range);
void tern_placement_each(const tern_weights *w, const tern_sharing *sharing, const tern_worker_place *workers,
                         tern_node_range_fn *fn, void *user);

// Asks the system to put the codes on the nodes of the workers that will read them. Called before they are written; does
// nothing on a machine of one node. Scales and row sums (1 % of the bytes) lie where they are first touched.
void tern_placement_bind(const tern_context *ctx, const tern_weights *w);

#endif
