// SPDX-License-Identifier: MIT
// score and sum_values of a tier as functions of their own for each number of queries: so gcc 12 keeps the sums in registers.
#define PANELS_OF(queries)                                                                                                     \
    static __attribute__((noinline)) void score_##queries(int32_t *dots, const int8_t *keys, size_t groups,                    \
                                                          const tern_attention_int8_args *a, ahead next) {                     \
        score(dots, keys, groups, a, next, queries);                                                                           \
    }                                                                                                                          \
    static __attribute__((noinline)) void sum_values_##queries(int32_t *sums, const int8_t *values, size_t groups,             \
                                                               const uint8_t *codes, ahead next) {                             \
        sum_values(sums, values, groups, codes, next, queries);                                                                \
    }
PANELS_OF(1)
PANELS_OF(2)
PANELS_OF(3)
PANELS_OF(4)

static inline void score_panel(int32_t *dots, const int8_t *keys, size_t groups, const tern_attention_int8_args *a,
                               ahead next) {
    static void (*const of[TERN_ATTN_INT8_QUERIES])(int32_t *, const int8_t *, size_t, const tern_attention_int8_args *,
                                                    ahead) = {score_1, score_2, score_3, score_4};
    of[a->n_queries - 1](dots, keys, groups, a, next);
}

static inline void value_panel(int32_t *sums, const int8_t *values, size_t groups, const uint8_t *codes, size_t queries,
                               ahead next) {
    static void (*const of[TERN_ATTN_INT8_QUERIES])(int32_t *, const int8_t *, size_t, const uint8_t *,
                                                    ahead) = {sum_values_1, sum_values_2, sum_values_3, sum_values_4};
    of[queries - 1](sums, values, groups, codes, next);
}
