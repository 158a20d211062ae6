// SPDX-License-Identifier: MIT
// A session kept in a file between runs of tern generate.
#include "prompt_cache.h"

#include <errno.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// The file is replaced by one made beside it.
static int check_folder(const char *path) {
    char *copy = strdup(path);
    if (!copy) return cli_fail("no memory for the name of the prompt cache; give a shorter one");
    const int error = !*path ? ENOENT : access(dirname(copy), W_OK | X_OK) == 0 ? 0 : errno;
    free(copy);
    return error ? cli_fail("cannot write '%s': %s; give another place with --prompt-cache", path, strerror(error)) : CLI_OK;
}

int prompt_cache_load(answer *a, const char *path, const int32_t *tokens, size_t n, size_t *reused) {
    *reused = 0;
    if (!path) return CLI_OK;
    const int rc = check_folder(path);
    if (rc != CLI_OK || access(path, F_OK) != 0) return rc; // it will be made
    tern_status status = tern_session_restore(a->session, path);
    if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    const int32_t *have = tern_session_tokens(a->session);
    size_t same = 0;
    while (same < tern_session_length(a->session) && same + 1 < n && have[same] == tokens[same]) same++;
    status = tern_session_truncate(a->session, same);
    if (status == TERN_OK) status = tern_sampler_accept(a->sampler, tokens, same);
    if (status != TERN_OK) return cli_fail_status(a->ctx, status);
    memcpy(a->tokens, tokens, same * sizeof *tokens);
    a->n_tokens = *reused = same;
    return CLI_OK;
}

int prompt_cache_save(answer *a, const char *path) {
    if (!path) return CLI_OK;
    // The last token may be undecoded, or a wrong guess may stand in its place.
    tern_status status = TERN_OK;
    if (tern_session_length(a->session) >= a->n_tokens) status = tern_session_truncate(a->session, a->n_tokens - 1);
    if (status == TERN_OK) status = tern_session_save(a->session, path);
    return status == TERN_OK ? CLI_OK : cli_fail_status(a->ctx, status);
}
