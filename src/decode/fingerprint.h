// SPDX-License-Identifier: MIT
// What tells one model file from another, cheaply.
#ifndef TERN_DECODE_FINGERPRINT_H
#define TERN_DECODE_FINGERPRINT_H

#include "decode/model.h"

// Of the architecture, the sizes, every norm and bias, the rotations, the name, type and shape of every tensor and samples of
// its data; of a packed file its checksums as well, so a model and its packed form are two. Not of the forms that were asked
// for when it was loaded. Two files with other weights differ, unless somebody takes pains.
uint64_t tern_model_fingerprint(const tern_model *m);

#endif
