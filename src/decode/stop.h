// SPDX-License-Identifier: MIT
// Stopping a forward pass between layers: cancelled sessions, and deadlines.
#ifndef TERN_DECODE_STOP_H
#define TERN_DECODE_STOP_H

#include "decode/linear.h"

// Appends a stage that stops the region with CANCELLED, and says why in f->stop, where a session of the pass was stopped.
void tern_stop_add(tern_pass *f);

// Static: one sentence with the remedy.
const char *tern_stop_message(tern_stop stop);

#endif
