// SPDX-License-Identifier: MIT
// The turns of a conversation, and forgetting the oldest ones.
#include "turns.h"

#include <stdlib.h>
#include <string.h>

void turns_clear(turns *t) {
    for (size_t i = 0; i < t->n; i++) free(t->list[i].user);
    t->n = 0;
}

void turns_free(turns *t) {
    turns_clear(t);
    free(t->list);
}

int turns_add(turns *t, const answer *a, const char *user, size_t size) {
    if (t->n == t->room) {
        const size_t room = 2 * t->room + 1;
        past_turn *larger = realloc(t->list, room * sizeof *larger);
        if (!larger) return cli_fail("no memory for more turns; /reset begins anew");
        t->list = larger;
        t->room = room;
    }
    char *copy = malloc(size + 1);
    if (!copy) return cli_fail("no memory for the message; give a shorter one");
    memcpy(copy, user, size);
    t->list[t->n++] = (past_turn){copy, size, a->n_tokens};
    return CLI_OK;
}

// The conversation from turn `from` on, as if it had begun there: a new array, whose turn `from` has its reply at *reply_at.
static int tokens_from(const turns *t, const answer *a, const cli_options *options, tern_chat_turn first, size_t from,
                       int32_t **tokens, size_t *n, size_t *reply_at) {
    const past_turn *oldest = &t->list[from];
    first.user = oldest->user;
    first.user_size = oldest->user_size;
    first.follows = 0;
    int32_t *begin = NULL;
    const int rc = cli_tokenize_turn(options, a->ctx, a->model, &first, &begin, reply_at);
    if (rc != CLI_OK) return rc;
    const size_t kept = a->n_tokens - oldest->reply_at;
    *n = *reply_at + kept;
    *tokens = realloc(begin, *n * sizeof **tokens);
    if (!*tokens) {
        free(begin);
        return cli_fail("no memory for %zu tokens; /reset begins anew", *n);
    }
    memcpy(*tokens + *reply_at, a->tokens + oldest->reply_at, kept * sizeof **tokens);
    return CLI_OK;
}

static void drop(turns *t, size_t n, size_t reply_at) {
    const size_t before = t->list[n].reply_at;
    for (size_t i = 0; i < n; i++) free(t->list[i].user);
    t->n -= n;
    memmove(t->list, t->list + n, t->n * sizeof *t->list);
    for (size_t i = 0; i < t->n; i++) t->list[i].reply_at += reply_at - before; // wraps where it shrinks, and so is right
}

int turns_forget(turns *t, answer *a, const cli_options *options, const tern_chat_turn *first, size_t need, size_t *dropped) {
    *dropped = 0;
    for (size_t from = 1; from < t->n; from++) {
        int32_t *tokens = NULL;
        size_t n, reply_at;
        int rc = tokens_from(t, a, options, *first, from, &tokens, &n, &reply_at);
        if (rc != CLI_OK) return rc;
        const size_t most = from + 1 < t->n ? a->n_ctx / 2 : a->n_ctx;
        if (n + need <= most) {
            rc = answer_replace(a, tokens, n);
            drop(t, from, reply_at);
            *dropped = from;
        }
        free(tokens);
        if (rc != CLI_OK || *dropped) return rc;
    }
    return CLI_OK;
}
