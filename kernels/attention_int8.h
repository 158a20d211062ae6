// SPDX-License-Identifier: MIT
// What the tiers of INT8 attention share with their common body, attention_int8_body.h.
#ifndef TERN_KERNELS_ATTENTION_INT8_H
#define TERN_KERNELS_ATTENTION_INT8_H

#include "vector_types.h"

// Memory that is read soon, fetched while something else is multiplied: `step` bytes more with each group of a panel.
typedef struct ahead {
    const int8_t *at;
    size_t step;
} ahead;

#endif
