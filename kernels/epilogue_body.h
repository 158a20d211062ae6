// SPDX-License-Identifier: MIT
// The epilogue for the tier that includes this (see vector_types.h). Lane l of a vector is feature i + l.
#include <stdbool.h>

#include "half_vector.h"

static inline TERN_VF_INLINE vf load_sums(const int32_t *p) {
    vi v;
    memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, vf);
}

static inline TERN_VF_INLINE void store_output(void *y, tern_float_type type, size_t at, vf v, size_t count) {
    if (type == TERN_FLOAT_F32) {
        if (count >= WIDTH)
            store((float *)y + at, v);
        else
            store_some((float *)y + at, v, count);
        return;
    }
    uint16_t halves[WIDTH];
    store_halves(halves, type == TERN_FLOAT_F16 ? float_to_half(v) : float_to_bfloat(v));
    uint16_t *out = (uint16_t *)y + at;
    if (count >= WIDTH)
        memcpy(out, halves, sizeof halves);
    else
        memcpy(out, halves, count * sizeof *out);
}

// The vector of features i .. i + WIDTH - 1 of token t before bias and residual.
static inline TERN_VF_INLINE vf scaled(const tern_epilogue_args *a, bool has_acc, bool has_value, tern_scale_kind kind,
                                       size_t t, size_t i, vf x_scale) {
    const vf before = has_value ? load(a->value + t * a->ld_value + i) : (vf){0};
    if (!has_acc) return before;
    vf scale = x_scale; // uniform: of the weight as well
    if (kind == TERN_SCALE_F32) scale *= load((const float *)a->w_scales + i);
    if (kind == TERN_SCALE_F16) scale *= half_to_float(load_halves((const uint16_t *)a->w_scales + i));
    const vf part = load_sums(a->acc + t * a->ld_acc + i) * scale;
    return has_value ? before + part : part;
}

// All flags are constants where this is called, so each call is a loop of its own.
static inline TERN_VF_INLINE void all_tokens(const tern_epilogue_args *args, bool has_acc, bool has_value,
                                             tern_scale_kind kind) {
    const tern_epilogue_args copy = *args, *a = &copy; // no store to y can change it: its fields stay in registers
    for (size_t t = 0; t < a->m; t++) {
        float x_scale = has_acc ? a->x_scales[t * a->ld_x_scales] : 0.0f;
        if (has_acc && kind == TERN_SCALE_UNIFORM) x_scale *= *(const float *)a->w_scales;
        const float *residual = a->residual ? a->residual + t * a->ld_residual : NULL;
        size_t i = 0;
        for (; i + WIDTH <= a->n; i += WIDTH) {
            vf v = scaled(a, has_acc, has_value, kind, t, i, splat(x_scale));
            if (a->bias) v += load(a->bias + i);
            if (residual) v += load(residual + i);
            store_output(a->y, a->y_type, t * a->ldy + i, v, WIDTH);
        }
        if (i == a->n) continue;
        const size_t left = a->n - i;
        vf v = scaled(a, has_acc, has_value, kind, t, i, splat(x_scale));
        if (a->bias) v += load_some(a->bias + i, left);
        if (residual) v += load_some(residual + i, left);
        store_output(a->y, a->y_type, t * a->ldy + i, v, left);
    }
}

static inline TERN_VF_INLINE void with_sums(const tern_epilogue_args *a, bool has_value) {
    switch (a->scale_kind) {
    case TERN_SCALE_UNIFORM:
        all_tokens(a, true, has_value, TERN_SCALE_UNIFORM);
        break;
    case TERN_SCALE_F32:
        all_tokens(a, true, has_value, TERN_SCALE_F32);
        break;
    case TERN_SCALE_F16:
        all_tokens(a, true, has_value, TERN_SCALE_F16);
        break;
    }
}

void TERN_VF_NAME(epilogue)(const tern_epilogue_args *a) {
    if (!a->acc)
        all_tokens(a, false, true, TERN_SCALE_UNIFORM);
    else if (a->value)
        with_sums(a, true);
    else
        with_sums(a, false);
}
