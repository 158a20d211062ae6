// SPDX-License-Identifier: MIT
// Ctrl-C and window resizes: signals that work in progress looks at now and then, or that a poll waits for.
#ifndef TERN_TOOLS_INTERRUPT_H
#define TERN_TOOLS_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>

#include <tern/decode.h>

void interrupt_watch_once(void); // from now on Ctrl-C is noted; the second one ends the program
// From now on every Ctrl-C and resize is noted. Returns a descriptor that can be read when one was, -1 if there is no such
// thing.
int interrupt_watch_always(void);

bool interrupted(void);      // Ctrl-C since the last forgetting
bool resized(void);          // a resize since this was asked last
void interrupt_forget(void); // Ctrl-C, and what the descriptor has to read; the sessions below go on

// Ctrl-C also cancels these sessions, so that a call in progress stops within a layer. The array must live until the next call;
// n = 0: no session, from when this returns on.
void interrupt_cancels(tern_session *const *list, size_t n);

#endif
