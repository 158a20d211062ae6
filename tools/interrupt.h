// SPDX-License-Identifier: MIT
// Ctrl-C and window resizes: signals that work in progress looks at now and then, or that a poll waits for.
#ifndef TERN_TOOLS_INTERRUPT_H
#define TERN_TOOLS_INTERRUPT_H

#include <stdbool.h>

void interrupt_watch_once(void); // from now on Ctrl-C is noted; the second one ends the program
// From now on every Ctrl-C and resize is noted. Returns a descriptor that can be read when one was, -1 if there is no such
// thing.
int interrupt_watch_always(void);

bool interrupted(void);      // Ctrl-C since the last forgetting
bool resized(void);          // a resize since this was asked last
void interrupt_forget(void); // Ctrl-C, and what the descriptor has to read

#endif
