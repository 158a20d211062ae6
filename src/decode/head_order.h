// SPDX-License-Identifier: MIT
// The order of columns in a 6-bit head: those that weigh most first, where they keep 8 bits.
#ifndef TERN_DECODE_HEAD_ORDER_H
#define TERN_DECODE_HEAD_ORDER_H

#include "decode/loader.h"

// Sets head.order and head.norm of the loader's model from the rows of t and the last norm. A column weighs what its terms of a
// logit vary by, as far as weights tell: the square of the norm's weight times the mean square of the column.
tern_status tern_head_find_order(tern_loader *ld, const tern_gguf_tensor *t);

// Sets both from an order that was kept. Errors: FORMAT (it does not name each column once), MEMORY.
tern_status tern_head_take_order(tern_loader *ld, const uint32_t *order);

// order[0 .. k-1] = 0 .. k-1, by falling weight; equal ones in their order.
void tern_order_columns(uint32_t *order, const float *weight, size_t k);

#endif
