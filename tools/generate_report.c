// SPDX-License-Identifier: MIT
// What tern generate tells of a text, or of several, when they are written.
#include "generate_report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "speeds.h"
#include "utf8.h"

// ---- JSON -----------------------------------------------------------------------------------------------------

// Adds members to an object, or NULL where memory ran out. Both are given away.
static json_t *with(json_t *object, json_t *more) {
    const bool ok = object && more && json_object_update(object, more) == 0;
    json_decref(more);
    if (ok) return object;
    json_decref(object);
    return NULL;
}

static json_t *text_json(const answer *a) {
    char *text = utf8_clean(a->text.text, a->text.size);
    json_t *string = text ? json_string(text) : NULL;
    free(text);
    return string;
}

static json_t *token_ms_json(const speeds *s) {
    return json_pack("{s:o, s:o, s:o}", "p50", cli_real_json(s->p50), "p95", cli_real_json(s->p95), "p99",
                     cli_real_json(s->p99));
}

// What both forms have, at the beginning and at the end. n_written: tokens that steps of decoding made.
static json_t *head_json(const generate_report *r, const answer *a) {
    return json_pack("{s:s, s:o, s:I, s:I}", "schema", "tern.generate/1", "model", cli_text_json(r->model), "prompt_tokens",
                     (json_int_t)r->n_reused + (json_int_t)a->n_prompt, "reused_tokens", (json_int_t)r->n_reused);
}
static json_t *tail_json(const generate_report *r, const answer *a, size_t n_written) {
    return json_pack("{s:{s:o, s:o}, s:i, s:s, s:o}", "stages_ms", "prompt", stages_json(&r->prompt, 1), "token",
                     stages_json(&r->write, n_written), "threads", tern_context_threads(a->ctx), "version", tern_version(),
                     "kernels", cli_kernels_json(a->ctx));
}

static int print_json(const generate_report *r, const answer *a, size_t n_written, json_t *own) {
    return cli_print_json(with(with(head_json(r, a), own), tail_json(r, a, n_written)));
}

// Of a screened head; else null.
static json_t *screen_json(const tern_model *model) {
    tern_screen_info s = {.struct_size = sizeof s};
    tern_model_info info = {.struct_size = sizeof info};
    if (tern_model_get_screen(model, &s) != TERN_OK || tern_model_get_info(model, &info) != TERN_OK) return json_null();
    return json_pack("{s:I, s:I, s:I, s:I, s:I}", "tokens", (json_int_t)s.tokens, "rows", (json_int_t)s.rows, "bytes",
                     (json_int_t)s.bytes, "int8_bytes", (json_int_t)s.tokens * (json_int_t)info.head_bytes, "paused_tokens",
                     (json_int_t)s.paused);
}

static int answer_json(const generate_report *r, const answer *a, const speeds *s) {
    return print_json(r, a, a->n_steps,
                      json_pack("{s:o, s:s, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o}", "text", text_json(a), "stop", a->stop,
                                "generated_tokens", (json_int_t)a->n_generated, "drafted_tokens", (json_int_t)a->n_drafted,
                                "accepted_tokens", (json_int_t)a->n_accepted, "prefill_tok_per_s", cli_real_json(s->prefill),
                                "decode_tok_per_s", cli_real_json(s->decode), "first_token_ms", cli_real_json(s->first_ms),
                                "token_ms", token_ms_json(s), "screen", screen_json(a->model)));
}

// ---- Text -----------------------------------------------------------------------------------------------------

// One name where all stages run the same tier, else each stage's.
static void print_kernels(tern_context *ctx) {
    json_t *kernels = cli_kernels_json(ctx), *variant;
    const json_t *first = json_object_iter_value(json_object_iter(kernels));
    const char *stage;
    bool same = true;
    json_object_foreach(kernels, stage, variant) same = same && json_equal(variant, first);
    if (same) (void)fprintf(stderr, " %s", json_string_value(first));
    json_object_foreach(kernels, stage, variant) {
        if (!same) (void)fprintf(stderr, " %s/%s", stage, json_string_value(variant));
    }
    (void)fputc('\n', stderr);
    json_decref(kernels);
}

// What a screened head read.
static void print_screen(const tern_model *model) {
    tern_screen_info s = {.struct_size = sizeof s};
    tern_model_info info = {.struct_size = sizeof info};
    if (tern_model_get_screen(model, &s) != TERN_OK || tern_model_get_info(model, &info) != TERN_OK || s.tokens == 0) return;
    (void)fprintf(stderr, "screened   %llu tokens, %.1f %% of the rows whole, %.3f of the int8 head's bytes\n",
                  (unsigned long long)s.tokens, 100 * (double)s.rows / (double)(s.tokens * info.n_vocab),
                  (double)s.bytes / (double)(s.tokens * info.head_bytes));
}

static const char *plural(size_t n) { return n == 1 ? "" : "s"; }

static void print_prompt(const generate_report *r, const answer *a, const speeds *s) {
    if (r->prompt_cache)
        (void)fprintf(stderr, "\nreused     %zu token%s of %s", r->n_reused, plural(r->n_reused), r->prompt_cache);
    (void)fprintf(stderr, "\nprompt     %zu token%s", a->n_prompt, plural(a->n_prompt));
    if (isfinite(s->prefill)) (void)fprintf(stderr, ", %.1f tok/s, first token after %.1f ms", s->prefill, s->first_ms);
}

static void print_end(const generate_report *r, const answer *a, size_t n_written) {
    (void)fprintf(stderr, "\nthreads    %d\nkernels   ", tern_context_threads(a->ctx));
    print_kernels(a->ctx);
    if (!r->stats) return;
    stages_print("in prompt", &r->prompt, 1);
    stages_print("per token", &r->write, n_written);
    print_screen(a->model);
}

static int answer_text(const generate_report *r, const answer *a, const speeds *s) {
    if (a->text.size == 0 || a->text.text[a->text.size - 1] != '\n') (void)putchar('\n');
    const int rc = cli_flush();
    print_prompt(r, a, s);
    (void)fprintf(stderr, "\ngenerated  %zu token%s (stopped by: %s)", a->n_generated, plural(a->n_generated), a->stop);
    if (isfinite(s->decode)) {
        (void)fprintf(stderr, ", %.1f tok/s; %s p50 %.2f ms, p95 %.2f ms, p99 %.2f ms", s->decode,
                      a->n_accepted ? "from token to token" : "per token", s->p50, s->p95, s->p99);
    }
    if (a->n_drafted)
        (void)fprintf(stderr, "\nguessed    %zu token%s, %zu of them right (%.0f %%)", a->n_drafted, plural(a->n_drafted),
                      a->n_accepted, 100 * (double)a->n_accepted / (double)a->n_drafted);
    print_end(r, a, a->n_steps);
    return rc;
}

int report_answer(const generate_report *r, answer *a) {
    const speeds s = speeds_measure(a);
    return (r->json ? answer_json : answer_text)(r, a, &s);
}

// ---- Several --------------------------------------------------------------------------------------------------

static size_t generated(const parallel *p) {
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) n += p->answers[i].n_generated;
    return n;
}

// Tokens of all answers that steps of decoding made, per second.
static double rate(const parallel *p) { return p->n_steps ? (double)p->n_decoded / p->seconds : (double)NAN; }

static json_t *sequences_json(const parallel *p) {
    json_t *list = json_array();
    for (size_t i = 0; i < p->n; i++) {
        answer *a = &p->answers[i];
        const speeds s = speeds_measure(a);
        (void)json_array_append_new(list, json_pack("{s:I, s:o, s:s, s:I, s:o}", "seed", (json_int_t)p->options[i].params.seed,
                                                    "text", text_json(a), "stop", a->stop, "generated_tokens",
                                                    (json_int_t)a->n_generated, "token_ms", token_ms_json(&s)));
    }
    return list;
}

static int parallel_json(const generate_report *r, const parallel *p, const speeds *s) {
    return print_json(r, &p->answers[0], p->n_decoded,
                      json_pack("{s:I, s:o, s:o, s:o, s:o}", "generated_tokens", (json_int_t)generated(p), "prefill_tok_per_s",
                                cli_real_json(s->prefill), "decode_tok_per_s", cli_real_json(rate(p)), "first_token_ms",
                                cli_real_json(s->first_ms), "sequences", sequences_json(p)));
}

int report_parallel(const generate_report *r, const parallel *p) {
    answer *first = &p->answers[0];
    const speeds s = speeds_measure(first);
    if (r->json) return parallel_json(r, p, &s);
    const int rc = cli_flush();
    print_prompt(r, first, &s);
    (void)fprintf(stderr, "\ngenerated  %zu tokens in %zu sequences", generated(p), p->n);
    if (p->n_steps)
        (void)fprintf(stderr, ", %.1f tok/s together; %zu steps of %.2f ms", rate(p), p->n_steps,
                      1e3 * p->seconds / (double)p->n_steps);
    print_end(r, first, p->n_decoded);
    return rc;
}
