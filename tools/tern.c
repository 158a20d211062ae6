// SPDX-License-Identifier: MIT
// The tern command: finds the subcommand.
#include "cli.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct command {
    const char *name; // with "tern " before it, for --help and error lines
    int (*run)(int argc, char **argv);
    const char *what;
} command;

static const command commands[] = {
    {"tern info", cmd_info, "this machine's CPU, the kernels chosen for it, and facts of a model"},
    {"tern generate", cmd_generate, "write text with a model"},
    {"tern chat", cmd_chat, "talk with a model"},
    {"tern pack", cmd_pack, "write a model as it lies in memory, so that it starts at once"},
    {"tern tokenize", cmd_tokenize, "show the tokens of a text"},
    {"tern perplexity", cmd_perplexity, "measure how well a model predicts a text"},
    {"tern compare", cmd_compare, "measure how far the predictions of two models are apart"},
    {"tern bench", cmd_bench, "measure this machine's limits and how near the kernels come"},
    {"tern tune", cmd_tune, "measure which layout of ternary weights is fastest here, and choose by that"},
};
enum { N_COMMANDS = sizeof commands / sizeof *commands, PREFIX = sizeof "tern " - 1 };

static void print_help(void) {
    (void)printf("Usage: tern COMMAND [OPTION...]\n\nTernary and INT8 language models on x86-64 CPUs.\n\n");
    for (size_t i = 0; i < N_COMMANDS; i++) (void)printf("  %-11s %s\n", commands[i].name + PREFIX, commands[i].what);
    (void)printf("\nExamples:\n"
                 "  tern info\n"
                 "  tern generate -m model.gguf -p 'Once upon a time' -n 64\n"
                 "  tern generate -m model.gguf --chat -p 'What is a tern?' --json\n"
                 "  tern chat -m model.gguf\n"
                 "  tern bench --quick\n"
                 "\n" CLI_ENVIRONMENT
                 "\ntern COMMAND --help tells the options of a command; tern --version the version. Manual: man tern.\n");
}

int main(int argc, char **argv) {
    argp_err_exit_status = CLI_USAGE;
    (void)signal(SIGXFSZ,
                 SIG_IGN); // a file above its limit (ulimit -f) is an error of a write, which is told, and leaves nothing
    const char *name = argc > 1 ? argv[1] : "";
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0) {
        print_help();
        return cli_flush();
    }
    if (strcmp(name, "--version") == 0) {
        (void)printf("tern %s\n", tern_version());
        return cli_flush();
    }
    for (size_t i = 0; i < N_COMMANDS; i++) {
        if (strcmp(name, commands[i].name + PREFIX) != 0) continue;
        char program[32];
        (void)snprintf(program, sizeof program, "%s", commands[i].name);
        argv[1] = program;
        return commands[i].run(argc - 1, argv + 1);
    }
    if (argc < 2)
        cli_usage("no command; give info, generate, chat, pack, tokenize, perplexity, compare, bench or tune (tern --help "
                  "tells more)");
    cli_usage("%s: unknown command; give info, generate, chat, pack, tokenize, perplexity, compare, bench or tune (tern --help "
              "tells more)",
              name);
}
