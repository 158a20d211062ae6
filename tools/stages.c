// SPDX-License-Identifier: MIT
// Where the time of an answer goes.
#include "stages.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const names[STAGE_GROUPS] = {"norm", "qkv", "attention", "ffn", "head", "sample", "other"};

// By the names that src/decode gives its stages.
static stage_group group_of(const char *stage) {
    static const struct {
        const char *begins;
        stage_group group;
    } groups[] = {{"norm", STAGE_NORM},           {"quantize", STAGE_NORM}, {"qkv", STAGE_QKV},
                  {"rope", STAGE_ATTENTION},      {"gate", STAGE_FFN},      {"silu", STAGE_FFN},
                  {"relu2", STAGE_FFN},           {"down", STAGE_FFN},      {"copy rows", STAGE_HEAD},
                  {"attention", STAGE_ATTENTION}, {"head", STAGE_HEAD}};
    for (size_t i = 0; stage && i < sizeof groups / sizeof *groups; i++)
        if (strncmp(stage, groups[i].begins, strlen(groups[i].begins)) == 0) return groups[i].group;
    return STAGE_OTHER;
}

int stages_begin(tern_context *ctx) {
    const tern_status status = tern_stage_times_start(ctx);
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

int stages_end(tern_context *ctx, double sample_s, stage_times *times) {
    static const double ms_per_s = 1e3, ms_per_ns = 1e-6;
    *times = (stage_times){.ms = {[STAGE_SAMPLE] = sample_s * ms_per_s}};
    tern_status status = tern_stage_times_stop(ctx);
    for (size_t i = 0; status == TERN_OK && i < tern_stage_times_count(ctx); i++) {
        tern_stage_time time = {.struct_size = sizeof time};
        status = tern_stage_times_get(ctx, i, &time);
        if (status == TERN_OK) times->ms[group_of(time.name)] += (double)time.ns * ms_per_ns;
    }
    return status == TERN_OK ? CLI_OK : cli_fail_status(ctx, status);
}

json_t *stages_json(const stage_times *times, size_t per) {
    json_t *object = json_object();
    for (size_t i = 0; i < STAGE_GROUPS; i++)
        (void)json_object_set_new(object, names[i], cli_real_json(per ? times->ms[i] / (double)per : (double)NAN));
    return object;
}

void stages_print(const char *what, const stage_times *times, size_t per) {
    double total = 0;
    for (size_t i = 0; i < STAGE_GROUPS; i++) total += times->ms[i];
    if (per == 0 || total == 0) return;
    (void)fprintf(stderr, "%-10s", what);
    for (size_t i = 0; i < STAGE_GROUPS; i++)
        (void)fprintf(stderr, "%s %s %.3f ms (%.0f %%)", i ? "," : "", names[i], times->ms[i] / (double)per,
                      100 * times->ms[i] / total);
    (void)fputc('\n', stderr);
}
