// SPDX-License-Identifier: MIT
// The workloads: a decoded token, a product of 512 tokens, empty and short regions; recorded, and timed with Tern's own pool.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <tern/decode.h>

#include "scale_bench.h"
#include "scale_record.h"

enum { CONTEXT = 64, COLD_RUNS = 7, HOT_RUNS = 3, QUICK_RUNS = 2, BURST = 4, BURSTS = 8, TURNS_MAX = BURST * BURSTS };
enum { GEMM_M = 512, GEMM_N = 6912, GEMM_K = 2560, GEMM_RUNS = 2, GEMM_TURNS = 7 };
enum { REGIONS = 2001, SHORT_REGIONS = 201, SHORT_STAGES = 100, SHORT_TILES = 1001 };
static const double nano = 1e9, short_seconds = 1e-6;

// Work that can be done again and again with a context.
typedef struct job {
    tern_context *ctx;
    bool (*run)(struct job *job);
    tern_model *model;
    tern_session *session;
    int32_t token;
    tern_weights *w;
    tern_activations *a;
    float *y;
} job;

static bool failed(const job *j, const char *what) { return sched_fail("%s: %s", what, tern_context_error(j->ctx)); }

static double seconds_of(job *j) {
    const double start = sched_seconds();
    return j->run(j) ? sched_seconds() - start : (double)NAN;
}

// ---- a decoded token --------------------------------------------------------------------------------------------------

static bool decode_token(job *j) {
    if (tern_session_length(j->session) == CONTEXT) tern_session_reset(j->session);
    j->token = j->token % 97 + 1; // any; what a token means changes no time
    return tern_decode_batch(j->model, &j->session, &j->token, 1) == TERN_OK || failed(j, "decoding");
}

static bool open_model(job *j, const char *path) {
    const tern_session_params params = {.struct_size = sizeof params, .n_ctx = CONTEXT};
    j->run = decode_token;
    return (tern_model_load(j->ctx, &j->model, path, NULL) == TERN_OK &&
            tern_session_create(j->model, &j->session, &params) == TERN_OK) ||
           failed(j, "loading a model");
}

// ---- a product ----------------------------------------------------------------------------------------------------------

static bool multiply(job *j) {
    return tern_matmul_f32(j->ctx, j->w, j->a, j->y, GEMM_N, NULL) == TERN_OK || failed(j, "a product");
}

static bool open_gemm(job *j, const char *unused) {
    (void)unused;
    const float scale = 1;
    const tern_weights_params params = {.struct_size = sizeof params, .expect_m = GEMM_M};
    int8_t *trits = malloc((size_t)GEMM_N * GEMM_K);
    float *x = malloc(sizeof *x * GEMM_M * GEMM_K);
    j->y = malloc(sizeof *j->y * GEMM_M * GEMM_N);
    j->run = multiply;
    bool ok = trits && x && j->y;
    for (size_t i = 0; ok && i < (size_t)GEMM_N * GEMM_K; i++) trits[i] = (int8_t)((int)(i * i % 11 % 3) - 1);
    for (size_t i = 0; ok && i < (size_t)GEMM_M * GEMM_K; i++) x[i] = (float)(i % 17) - 8;
    ok = ok && tern_weights_from_trits(j->ctx, &j->w, trits, &scale, 0, GEMM_N, GEMM_K, GEMM_K, &params) == TERN_OK &&
         tern_activations_create(j->ctx, &j->a, GEMM_M, GEMM_K) == TERN_OK &&
         tern_activations_set_f32(j->ctx, j->a, x, GEMM_M, GEMM_K, GEMM_K, 0) == TERN_OK;
    free(trits);
    free(x);
    return ok || failed(j, "a product of many tokens");
}

static void close_job(job *j) { // its context is closed by who opened it
    tern_session_destroy(j->session);
    tern_model_destroy(j->model);
    tern_activations_destroy(j->a);
    tern_weights_destroy(j->w);
    free(j->y);
}

// ---- recording and timing -------------------------------------------------------------------------------------------

typedef struct work {
    bool (*open)(job *j, const char *path);
    const char *path;
    size_t cold_runs, hot_runs, burst, bursts;
} work;

static bool describe(json_t *workload, const job *j) {
    tern_model_info info = {.struct_size = sizeof info}; // of a product: nothing, what it reads stays in cache
    if (j->model && tern_model_get_info(j->model, &info) != TERN_OK) return failed(j, "describing a model");
    (void)json_object_set_new(workload, "bytes", json_integer((json_int_t)info.bytes_per_token));
    (void)json_object_set_new(workload, "layers", json_integer((json_int_t)info.n_layers));
    return true;
}

// Appends {"workers", "stages"} to the layouts of a workload.
static bool record(json_t *workload, const work *w, int workers) {
    json_t *layouts = json_object_get(workload, "layouts");
    scale_record r;
    job j = {.ctx = scale_record_open(&r, workers)};
    if (!j.ctx) return false;
    bool ok = w->open(&j, w->path) && describe(workload, &j) && j.run(&j);
    for (size_t i = 0; i < w->cold_runs + w->hot_runs && ok; i++) {
        scale_record_begin(&r, i < w->cold_runs ? SCALE_PASS_COLD : SCALE_PASS_HOT);
        ok = j.run(&j);
        scale_record_end(&r);
    }
    if (ok && r.most > SCALE_STAGES_MAX)
        ok = sched_fail("%s has %zu stages; there is room for %d", w->path, r.most, SCALE_STAGES_MAX);
    if (ok)
        (void)json_array_append_new(layouts, json_pack("{s:i, s:o}", "workers", workers, "stages", scale_record_stages(&r)));
    close_job(&j);
    scale_record_close(&r, j.ctx);
    return ok;
}

// One worker and two in turn, in bursts: in the first run of each the second worker may still be asleep.
static bool time_pools(json_t *result, const work *w) {
    job jobs[SCHED_PAIR] = {{.ctx = NULL}};
    double values[SCHED_PAIR][TURNS_MAX];
    size_t n = 0;
    bool ok = true;
    for (int p = 0; p < SCHED_PAIR && ok; p++) {
        jobs[p].ctx = sched_open(p + 1);
        ok = jobs[p].ctx && w->open(&jobs[p], w->path) && jobs[p].run(&jobs[p]);
    }
    for (size_t burst = 0; burst < w->bursts && ok; burst++, n += w->burst)
        for (int p = 0; p < SCHED_PAIR && ok; p++) {
            ok = jobs[p].run(&jobs[p]);
            for (size_t i = 0; i < w->burst; i++) values[p][n + i] = seconds_of(&jobs[p]);
        }
    sched_set_real(result, "measured_1_ns", nano * sched_median(values[0], n));
    sched_set_real(result, "measured_2_ns", nano * sched_median(values[1], n));
    for (int p = 0; p < SCHED_PAIR; p++) {
        close_job(&jobs[p]);
        tern_context_destroy(jobs[p].ctx);
    }
    return ok;
}

static bool measure(json_t *workload, const work *w, const int *workers, size_t n_workers) {
    bool ok = time_pools(workload, w);
    for (size_t i = 0; i < n_workers && ok; i++) ok = record(workload, w, workers[i]);
    return ok;
}

// ---- the public parts -----------------------------------------------------------------------------------------------

static json_t *add_workload(json_t *workloads, const char *name) {
    json_t *workload = json_pack("{s:s, s:[]}", "name", name, "layouts");
    (void)json_array_append_new(workloads, workload);
    return workload;
}

bool scale_measure_model(json_t *workloads, const char *path, const int *workers, size_t n_workers, bool quick) {
    const char *slash = strrchr(path, '/');
    json_t *workload = add_workload(workloads, slash ? slash + 1 : path);
    const work w = {open_model,
                    path,
                    quick ? QUICK_RUNS : COLD_RUNS,
                    quick ? QUICK_RUNS : HOT_RUNS,
                    quick ? 1 : BURST,
                    quick ? QUICK_RUNS : BURSTS};
    return measure(workload, &w, workers, n_workers);
}

bool scale_measure_gemm(json_t *workloads, const int *workers, size_t n_workers, bool quick) {
    json_t *workload = add_workload(workloads, "gemm_m512_n6912_k2560");
    const work w = {open_gemm, "a product", quick ? 1 : GEMM_RUNS, 1, 1, quick ? 1 : GEMM_TURNS};
    return measure(workload, &w, workers, n_workers);
}

static size_t short_additions;
static void empty_tile(void *arg, size_t tile) { (void)arg, (void)tile; }
static void short_tile(void *arg, size_t tile) {
    (void)arg, (void)tile;
    sched_work(short_additions);
}

// A region of equal stages with a tile for each worker: what the pool alone costs.
static double region_seconds(int workers, tern_tile_fn fn, size_t n_stages, size_t n_regions) {
    tern_stage stages[SHORT_STAGES];
    double values[REGIONS];
    tern_context *ctx = sched_open(workers);
    for (size_t i = 0; i < n_stages; i++) stages[i] = (tern_stage){.fn = fn, .n_tiles = (size_t)workers};
    for (size_t i = 0; ctx && i < n_regions; i++) {
        const double start = sched_seconds();
        const tern_status status = tern_run_region(ctx, stages, n_stages);
        values[i] = status == TERN_OK ? sched_seconds() - start : (double)NAN;
    }
    tern_context_destroy(ctx);
    return ctx ? sched_median(values, n_regions) : (double)NAN;
}

static double tile_seconds(tern_tile_fn fn) {
    double values[SHORT_TILES], clock[SHORT_TILES];
    for (size_t i = 0; i < SHORT_TILES; i++) {
        const double start = sched_seconds(), between = sched_seconds();
        fn(NULL, i);
        values[i] = sched_seconds() - between;
        clock[i] = between - start;
    }
    return fmax(0, sched_median(values, SHORT_TILES) - sched_median(clock, SHORT_TILES));
}

static void add_regions(json_t *workloads, const char *name, tern_tile_fn fn, size_t n_stages, size_t n_regions) {
    json_t *workload = add_workload(workloads, name), *stages = json_array();
    const double tile = nano * tile_seconds(fn);
    for (size_t i = 0; i < n_stages; i++) (void)json_array_append_new(stages, json_pack("{s:f}", "tile_ns", tile));
    (void)json_object_set_new(workload, "per_worker", stages); // a tile for each worker, however many
    sched_set_real(workload, "measured_1_ns", nano * region_seconds(1, fn, n_stages, n_regions));
    sched_set_real(workload, "measured_2_ns", nano * region_seconds(SCHED_PAIR, fn, n_stages, n_regions));
}

bool scale_measure_empty(json_t *workloads, bool quick) {
    short_additions = sched_additions(short_seconds);
    add_regions(workloads, "empty_region", empty_tile, 1, quick ? SHORT_REGIONS : REGIONS);
    add_regions(workloads, "short_stages", short_tile, SHORT_STAGES, quick ? QUICK_RUNS : SHORT_REGIONS);
    return true;
}
