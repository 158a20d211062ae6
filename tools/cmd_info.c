// SPDX-License-Identifier: MIT
// tern info: the CPU, its instruction sets, the kernels chosen for it, the topology, and facts of a model.
#include "cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tern/tune.h>

#include "info_topology.h"

typedef struct info_options {
    cli_options base;
    bool variants;
} info_options;

enum { INFO_KEY_VARIANTS = CLI_KEY_OWN };

static error_t parse(int key, char *arg, struct argp_state *state) {
    (void)arg;
    info_options *options = state->input;
    switch (key) {
    case ARGP_KEY_INIT:
        for (size_t i = 0; i < 5; i++) state->child_inputs[i] = &options->base;
        return 0;
    case INFO_KEY_VARIANTS:
        options->variants = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}
static const struct argp_option own_options[] = {
    {"variants", INFO_KEY_VARIANTS, NULL, 0, "List every kernel variant in the library", 1}, {0}};
static const struct argp_child children[] = {{&cli_model_argp, 0, NULL, 0},   {&cli_kernel_argp, 0, NULL, 0},
                                             {&cli_head_argp, 0, NULL, 0},    {&cli_load_argp, 0, NULL, 0},
                                             {&cli_machine_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {.options = own_options,
                                 .parser = parse,
                                 .children = children,
                                 .doc = "What Tern knows about this machine and, with -m, about a model.\v"
                                        "Examples:\n"
                                        "  tern info\n"
                                        "  tern info -m model.gguf\n"
                                        "  tern info --json | jq .kernels\n"
                                        "  tern info --isa avx2 --variants\n"
                                        "\n" CLI_ENVIRONMENT};

// ---- The machine --------------------------------------------------------------------------------------------

static json_t *words_json(const char *text) {
    json_t *words = json_array();
    while (*text) {
        const size_t n = strcspn(text, " ");
        if (n) (void)json_array_append_new(words, json_stringn(text, n));
        text += n + (text[n] == ' ');
    }
    return words;
}

static json_t *variants_json(tern_context *ctx) {
    json_t *list = json_array();
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(ctx, i, &v) != TERN_OK) continue;
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:s, s:s, s:s, s:b, s:b}", "stage", v.stage, "variant", v.tier, "layout",
                                              v.layout, "symbol", v.symbol, "usable", v.usable, "chosen", v.chosen));
    }
    return list;
}

static json_t *machine_json(tern_context *ctx, const tern_cpu_info *cpu, const tern_topology_info *t) {
    return json_pack("{s:s, s:s, s:{s:s, s:s, s:o, s:s, s:s}, s:o, s:o, s:{s:o, s:I}, s:o}", //
                     "schema", "tern.info/1", "version", tern_version(),                     //
                     "cpu", "vendor", cpu->vendor, "model", cpu->model, "isa", words_json(cpu->features), "best_tier",
                     cpu->best, "tier",
                     cpu->tier,                                                                                         //
                     "kernels", cli_kernels_json(ctx), "variants", variants_json(ctx),                                  //
                     "tuning", "path", cli_text_json(tern_tune_path(ctx)), "results", (json_int_t)tern_tune_count(ctx), //
                     "topology", info_topology_json(ctx, t));
}

static void print_machine(tern_context *ctx, const tern_cpu_info *cpu, const tern_topology_info *t, bool all_variants) {
    (void)printf("tern      %s\n", tern_version());
    (void)printf("cpu       %s (%s)\n", cpu->model, cpu->vendor);
    (void)printf("isa       %s\n", cpu->features);
    (void)printf("tier      %s (the best this machine can run: %s)\n", cpu->tier, cpu->best);
    info_topology_print(ctx, t);
    if (tern_tune_count(ctx))
        (void)printf("tuning    %zu results of tern tune choose the layouts of ternary weights", tern_tune_count(ctx));
    else
        (void)printf("tuning    none: built-in rules choose the layouts of ternary weights");
    (void)printf("\nkernels   %-15s %-11s %s\n", "stage", "variant", "layout");
    for (size_t i = 0; i < tern_variant_count(); i++) {
        tern_variant_info v = {.struct_size = sizeof v};
        if (tern_variant_get(ctx, i, &v) != TERN_OK || !(v.chosen || all_variants)) continue;
        const char *state = v.chosen ? "chosen" : v.usable ? "usable" : "not on this CPU, or above the tier";
        (void)printf("          %-15s %-11s ", v.stage, v.tier);
        if (all_variants) {
            (void)printf("%-6s %s  %s", v.layout, v.symbol, state);
        } else {
            (void)printf("%s", v.layout);
        }
        (void)putchar('\n');
    }
}

// ---- The model ----------------------------------------------------------------------------------------------

// {type: {tensors, bytes}} of a file.
static json_t *tensor_types(const tern_model *model) {
    json_t *types = json_object();
    tern_tensor_info t = {.struct_size = sizeof t};
    for (size_t i = 0; tern_model_get_tensor(model, i, &t) == TERN_OK; i++) {
        json_t *type = json_object_get(types, t.type);
        const json_int_t count = json_integer_value(json_object_get(type, "tensors")) + 1;
        const json_int_t bytes = json_integer_value(json_object_get(type, "bytes")) + (json_int_t)t.bytes;
        (void)json_object_set_new(types, t.type, json_pack("{s:I, s:I}", "tensors", count, "bytes", bytes));
    }
    return types;
}

static json_t *model_json(const tern_model_info *m, const char *path, json_t *types) {
    return json_pack("{s:o, s:o, s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:I, s:I, s:s, s:I, "
                     "s:o, s:I, s:I, s:O}", //
                     "path", cli_text_json(path), "architecture", cli_text_json(m->architecture), "name",
                     cli_text_json(m->name), "tokenizer", m->tokenizer, //
                     "layers", (json_int_t)m->n_layers, "hidden", (json_int_t)m->n_embd, "ffn", (json_int_t)m->n_ff, "heads",
                     (json_int_t)m->n_heads, "kv_heads", (json_int_t)m->n_kv_heads, "head_dim", (json_int_t)m->head_dim,
                     "vocab", (json_int_t)m->n_vocab, "context", (json_int_t)m->n_ctx_train, //
                     "parameters", (json_int_t)m->n_params, "file_bytes", (json_int_t)m->file_bytes, "bytes_per_token",
                     (json_int_t)m->bytes_per_token, "bits_per_weight", cli_real_json(m->bits_per_weight), //
                     "ternary_matrices", (json_int_t)m->n_ternary, "int8_matrices", (json_int_t)m->n_int8, "head", m->head,
                     "head_bytes", (json_int_t)m->head_bytes, "packed_for",
                     m->packed_tier ? cli_text_json(m->packed_tier) : json_null(), "packed_threads",
                     (json_int_t)m->packed_threads, "act_block", (json_int_t)m->act_block, "types", types);
}

// A name out of a file: no control character of it reaches the terminal.
static void print_name(const char *name) {
    enum { DELETE = 0x7F };
    for (; *name; name++) (void)putchar((unsigned char)*name < ' ' || *name == DELETE ? '?' : *name);
}

static void print_model(const tern_model_info *m, const char *path, const json_t *types) {
    static const double mega = 1e6;
    (void)printf("model     %s: ", path);
    print_name(m->name);
    (void)printf(", architecture %s, tokenizer %s\n", m->architecture, m->tokenizer);
    (void)printf("          layers %u, hidden %u, FFN %u, heads %u of %u with %u kv heads, vocabulary %u, context %u\n",
                 m->n_layers, m->n_embd, m->n_ff, m->n_heads, m->head_dim, m->n_kv_heads, m->n_vocab, m->n_ctx_train);
    (void)printf("          %.1f M parameters, file %.1f MB, packed %.2f bits per weight, %.1f MB read per token\n",
                 (double)m->n_params / mega, (double)m->file_bytes / mega, m->bits_per_weight,
                 (double)m->bytes_per_token / mega);
    (void)printf("          head %s, %.2f bits per weight, %.1f MB\n", m->head,
                 (double)m->head_bytes * 8 / ((double)m->n_vocab * (double)m->n_embd), (double)m->head_bytes / mega);
    if (m->act_block) (void)printf("          activations in blocks of %zu, or less\n", m->act_block);
    if (m->packed_tier) (void)printf("          packed for %s and %u threads\n", m->packed_tier, m->packed_threads);
    (void)printf("          matrices: %zu ternary, %zu of 4 to 8 bits; tensors in the file:", m->n_ternary, m->n_int8);
    const char *name;
    json_t *type;
    json_object_foreach((json_t *)types, name, type) {
        (void)printf(" %" JSON_INTEGER_FORMAT " %s", json_integer_value(json_object_get(type, "tensors")), name);
    }
    (void)putchar('\n');
}

static int show(const info_options *options, tern_context *ctx, const tern_model *model) {
    tern_cpu_info cpu = {.struct_size = sizeof cpu};
    tern_topology_info topology = {.struct_size = sizeof topology};
    tern_model_info info = {.struct_size = sizeof info};
    tern_status status = tern_get_cpu_info(ctx, &cpu);
    if (status == TERN_OK) status = tern_get_topology_info(ctx, &topology);
    if (status == TERN_OK && model) status = tern_model_get_info(model, &info);
    if (status != TERN_OK) return cli_fail_status(ctx, status);
    json_t *types = model ? tensor_types(model) : NULL;
    int rc;
    if (options->base.json) {
        json_t *object = machine_json(ctx, &cpu, &topology);
        if (model && json_object_set_new(object, "model", model_json(&info, options->base.model, types)) != 0) {
            json_decref(object);
            object = NULL; // cli_print_json reports it
        }
        rc = cli_print_json(object);
    } else {
        print_machine(ctx, &cpu, &topology, options->variants);
        if (model) print_model(&info, options->base.model, types);
        rc = cli_flush();
    }
    json_decref(types);
    return rc;
}

int cmd_info(int argc, char **argv) {
    info_options options = {{0}, false};
    cli_parse(&argp, argc, argv, &options);
    tern_context *ctx = NULL;
    tern_model *model = NULL;
    int rc = cli_open_context(&options.base, &ctx);
    if (rc == CLI_OK && options.base.model) rc = cli_open_model(&options.base, ctx, &model);
    if (rc == CLI_OK) rc = show(&options, ctx, model);
    tern_model_destroy(model);
    tern_context_destroy(ctx);
    return rc;
}
