// SPDX-License-Identifier: MIT
// The inside of a tokenizer: what loading (tokenizer.c) gives to encoding (encode.c).
#ifndef TERN_DECODE_TOKENIZER_PARTS_H
#define TERN_DECODE_TOKENIZER_PARTS_H

#include "decode/bpe.h"
#include "decode/pretokenize.h"
#include "decode/special.h"
#include "decode/spm.h"
#include "decode/tokenizer.h"

enum { TERN_TOKENIZER_NAME_MAX = 48, TERN_NO_TOKEN = -1, TERN_ENDS_MAX = 8 };

struct tern_tokenizer {
    const tern_allocator *allocator;
    const tern_pre_rule *rule; // byte-level BPE; NULL with SentencePiece
    tern_pre *pre;             //
    bool space_prefix;         // SentencePiece: text is encoded as if a space stood before it, and so after each control token
    tern_vocab vocab;
    tern_bpe bpe;
    tern_specials specials;
    int32_t bos; // TERN_NO_TOKEN: the model does not ask for one
    int32_t eos; // TERN_NO_TOKEN: the file names none
    int32_t ends[TERN_ENDS_MAX];
    size_t n_ends;
    char name[TERN_TOKENIZER_NAME_MAX];
};

#endif
