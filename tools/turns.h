// SPDX-License-Identifier: MIT
// The turns of a conversation, and forgetting the oldest ones where the context is full.
#ifndef TERN_TOOLS_TURNS_H
#define TERN_TOOLS_TURNS_H

#include "answer.h"

// What the user said, and where in the answer's tokens the model's reply begins: it ends where the next turn begins.
typedef struct past_turn {
    char *user;
    size_t user_size;
    size_t reply_at;
} past_turn;

typedef struct turns {
    past_turn *list; // [n], the oldest first
    size_t n, room;
} turns;

void turns_free(turns *t);
void turns_clear(turns *t);
// A turn whose reply is about to begin. CLI_FAILED with an error line.
int turns_add(turns *t, const answer *a, const char *user, size_t size);

// Drops as many of the oldest turns, but not the last one, as it takes until at most half of the context is in use once `need`
// more tokens are there; or, of the last turn alone, until they have room. What is left is read again, with the system message
// of `first` (its user is not looked at) in front. Sets how many were dropped; 0: nothing helps, and nothing was done. a->stop
// is set where that was interrupted.
int turns_forget(turns *t, answer *a, const cli_options *options, const tern_chat_turn *first, size_t need, size_t *dropped);

#endif
