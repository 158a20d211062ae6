// SPDX-License-Identifier: MIT
// The inside of a tern_plan: what is quantized (groups), which tables are built from it (sets), and which products use them.
#ifndef TERN_MATMUL_PLAN_H
#define TERN_MATMUL_PLAN_H

#include "matmul/product.h"
#include "matmul/tables.h"

// Weights of one activation block: they share quantized rows.
typedef struct tern_plan_group {
    tern_act_view view;    // m is that of the run under way
    bool has_tables;       // some set of the group
    tern_act_view private; // one row per part, where the few tokens of a run are too few rows for the parts
} tern_plan_group;

// Weights that run as one stage: of one group, without tables or with the same.
typedef struct tern_plan_set {
    size_t group;
    size_t first, count;    // of the plan's weights
    int8_t *tables;         // of up to TERN_LUT_TOKENS tokens; NULL without tables
    size_t ld_tables;       // bytes of one token's
    int8_t *private_tables; // of up to TERN_LUT_TOKENS tokens for each part; NULL if max_m <= TERN_LUT_TOKENS
} tern_plan_set;

// The weights, each in the form for some number of tokens, sorted into sets.
typedef struct tern_plan_forms {
    const tern_weights **weights; // [n_weights], set by set
    size_t *units;                // n_units of each
    size_t *index;                // of weights[i] in the caller's array
    tern_plan_set *sets;          // n_weights allocated
    size_t n_sets;
} tern_plan_forms;

enum { TERN_PLAN_FORMS = 2 }; // for few tokens, and for many_from and more

struct tern_plan {
    tern_context *ctx;
    tern_allocator allocator;
    size_t k, max_m, max_parts;
    tern_type x_type, y_type;
    size_t act_block; // of all weights, with S8 and U8 input
    bool row_sums;    // all weights have them
    size_t n_weights;
    tern_plan_forms forms[TERN_PLAN_FORMS];
    size_t many_from;
    tern_product *products; // [n_weights], of the run under way
    tern_plan_group *groups;
    size_t n_groups;
    tern_stage *stages;
    size_t max_stages;
    unsigned char *args;
    size_t args_bytes;
    unsigned char *workspace;
    size_t workspace_bytes;
    bool owns_workspace;
    atomic_int not_finite;    // set by a tile that met NaN or infinity
    atomic_size_t prepared_m; // tokens that the parts prepared last, each of which writes it; 0: none
};

static inline const tern_plan_forms *tern_plan_forms_for(const tern_plan *plan, size_t m) {
    return &plan->forms[m >= plan->many_from];
}

// Checks a batch for the plan. err may be NULL: no message.
tern_status tern_plan_check_input(const tern_plan *plan, const tern_plan_input *input, tern_plan_input *in, tern_error *err);
// Reads the output of forms->weights[at] from the caller's array and checks it.
tern_status tern_plan_read_output(const tern_plan *plan, const tern_plan_forms *forms, size_t at,
                                  const tern_plan_output *outputs, size_t m, tern_product *product, tern_error *err);
tern_act_source tern_plan_source(const tern_plan *plan, const tern_plan_input *input);

#endif
