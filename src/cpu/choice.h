// SPDX-License-Identifier: MIT
// Which layout new ternary weights get: from what `tern tune` measured on this machine, else from the built-in rules.
#ifndef TERN_CPU_CHOICE_H
#define TERN_CPU_CHOICE_H

#include "cpu/tune_table.h"

// What is known of a ternary weight when it is packed.
typedef struct tern_choice {
    size_t n, k;
    size_t scale_block; // depth of K-slices: of ternary block scales, or of blocks of activations; 0: one slice
    size_t m;           // tokens expected in one product; 0: not known, one or many
    bool cached;        // it is expected to stay in cache from one product to the next
    int threads;
    tern_form form;
} tern_choice;

// Pure. In this order: a variant forced through diagnostics.h, where `form` allows it; the fastest layout that `table` (may be
// NULL) has for the measured case nearest to `choice`; the built-in rule.
tern_layout tern_choose_layout(const tern_kernels *kernels, const tern_choice *choice, const tern_tune_table *table);

#endif
