// SPDX-License-Identifier: MIT
// The decode part: load a GGUF model, tokenize, decode, sample. Absent from a library built with -DTERN_DECODE=OFF.
//
//   tern_model_load -> tern_session_create -> tern_tokenize -> tern_decode_batch (prompt)
//   -> { tern_sample -> tern_decode_batch } for each token
#ifndef TERN_DECODE_H
#define TERN_DECODE_H

#include "matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

// ---- Model ----------------------------------------------------------------------------------------------

// A loaded model: immutable weights, hyperparameters, tokenizer. Belongs to the context it was loaded with.
typedef struct tern_model tern_model;

// done and total count weight bytes; called from the loading thread only.
typedef void (*tern_progress_fn)(void *user, uint64_t done, uint64_t total);

// The output head, the matrix that makes logits: often the largest one, and stored in more bits than the others.
// docs/numerics.md has what each form costs in bytes and changes in predictions.
typedef enum tern_head_form {
    TERN_HEAD_AUTO = 0,    // ternary or 4-bit where the file has it so; else INT6, the fastest whose KL is at most 0.003
    TERN_HEAD_EXACT = 1,   // as it lies in the file, times activations that are not quantized; read from the mapped file
    TERN_HEAD_INT8 = 2,    // 8 bits and a scale per 32
    TERN_HEAD_INT4 = 3,    // 4 bits, a scale and a min per 32
    TERN_HEAD_INT6 = 4,    // 6 bits and a scale per 32, 8 bits in the columns that weigh most
    TERN_HEAD_SCREENED = 5 // INT8, of which a token reads little more than half where the session needs only the largest logits
                           // (tern_session_set_top); the same bits
} tern_head_form;

// Where the weights of a packed model (tern_model_save) lie.
typedef enum tern_load {
    TERN_LOAD_AUTO = 0, // MAP for a packed model, COPY for a GGUF file
    TERN_LOAD_MAP = 1,  // in the file's pages, shared with other processes: the quickest start. UNSUPPORTED for a GGUF file
    TERN_LOAD_COPY = 2  // in memory of their own, on huge pages where the system gives them; every byte is verified on the
                        // way. Weights of a GGUF file always lie so (it has no checksums)
} tern_load;

typedef struct tern_model_params {
    size_t struct_size;
    tern_form form;            // kernels for ternary tensors
    tern_progress_fn progress; // NULL: none
    void *progress_user;
    tern_head_form head;
    tern_load load;
    size_t act_block; // elements of a row that get a scale of their own where activations are quantized: 32, 64, 128 or 256, or
                      // 0: as each matrix asks for, whole rows where it has one scale. Matrices with smaller blocks keep those.
                      // Smaller blocks bring predictions nearer to those of float activations and cost time (docs/numerics.md)
} tern_model_params;

// Maps the file, checks every size in it, packs the weights for this context's kernels, unless tern_model_save() wrote it.
// Form, head and act_block of a packed model are those it was packed with; asking for others is UNSUPPORTED. The file stays
// mapped while the model lives and must not be changed or shortened meanwhile: reading a page that is gone ends the process
// with SIGBUS. Errors: ARG, IO, FORMAT (damaged; the message names the tensor or key), UNSUPPORTED (type, architecture,
// tokenizer), MEMORY.
TERN_API tern_status tern_model_load(tern_context *ctx, tern_model **model, const char *path, const tern_model_params *params);
// After its sessions and samplers, before its context.
TERN_API void tern_model_destroy(tern_model *model);

// Writes the model as a packed file: the weights as they lie in memory, and all else of the GGUF file, so that a later start
// packs nothing. tern_model_load reads it like any model, on every machine that has vector kernels for its layouts. Weights of
// the table-lookup form serve no more threads than they were cut into slabs for, which are at least those of this context; the
// others serve any number. Elsewhere it is refused with the reason (UNSUPPORTED). The file appears whole or not at all; a file
// of that name that is not a packed model stays as it is. Not thread-safe per context. Errors: IO (cannot be written, no room),
// UNSUPPORTED (the model is a packed one), CANCELLED, MEMORY.
TERN_API tern_status tern_model_save(const tern_model *model, const char *path);
// What can be said before there is a model to save: that the folder can be written, and that the name is free or that of a
// packed model. Errors: ARG, IO.
TERN_API tern_status tern_model_save_check(tern_context *ctx, const char *path);
// From any thread, or a signal handler, while the model lives: a save in progress stops soon, and so do later ones; they return
// CANCELLED and leave nothing. One that has written its last byte finishes.
TERN_API void tern_model_cancel_save(tern_model *model);
// Reads every byte of a packed file and compares checksums. (Loading verifies header, index, metadata and small tensors, and
// with TERN_LOAD_COPY all weights.) Errors: IO, FORMAT (damaged; the message names the part), UNSUPPORTED (another format),
// MEMORY.
TERN_API tern_status tern_packed_check(tern_context *ctx, const char *path);

typedef struct tern_model_info {
    size_t struct_size;
    const char *architecture, *name, *tokenizer; // live as long as the model
    uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads, head_dim, n_vocab, n_ctx_train;
    uint64_t n_params;
    uint64_t file_bytes;
    uint64_t bytes_per_token; // packed bytes that one decoded token reads (matrices and head; the KV cache not counted)
    double bits_per_weight;   // of those matrices
    size_t n_ternary, n_int8; // matrices on each path
    const char *head; // layout of the packed head (kernels/layout.h), or its type in the file where it is read as it is; static
    uint64_t head_bytes; // that one token reads
    const char
        *packed_tier; // of a packed model: the instruction set that it was packed for (lives as long as the model); else NULL
    uint32_t packed_threads; // and the threads; else 0
    size_t act_block;        // as it was asked for when the model was loaded or packed
} tern_model_info;
TERN_API tern_status tern_model_get_info(const tern_model *model, tern_model_info *info);

// What a screened head has done since the model was loaded.
typedef struct tern_screen_info {
    size_t struct_size;
    uint64_t tokens; // whose logits were screened
    uint64_t rows;   // of the matrix that these tokens read whole, over all of them
    uint64_t bytes;  // of the head that these tokens read; the INT8 head: tokens * head_bytes of tern_model_info
    uint64_t paused; // tokens whose logits were all computed because too many rows of a token before them had to be read whole
} tern_screen_info;
// Not thread-safe per model. Errors: ARG, UNSUPPORTED (another head).
TERN_API tern_status tern_model_get_screen(const tern_model *model, tern_screen_info *info);

// Tensor i of the file: name, type name (or layout, of packed weights), shape (innermost first). Strings live as long as the
// model. ARG past the end.
typedef struct tern_tensor_info {
    size_t struct_size;
    const char *name; // name_size bytes, not NUL-terminated
    size_t name_size;
    const char *type;
    uint32_t n_dims;
    uint64_t dims[4];
    uint64_t bytes;
} tern_tensor_info;
TERN_API tern_status tern_model_get_tensor(const tern_model *model, size_t index, tern_tensor_info *info);

// ---- Tokens ---------------------------------------------------------------------------------------------

typedef struct tern_tokenize_params {
    size_t struct_size;
    int parse_special; // nonzero: text such as "<|im_start|>" becomes its special token
    int add_bos;       // nonzero: puts the model's BOS first, where the model asks for one
} tern_tokenize_params;

// Writes up to max ids and sets *n to the number needed; more than max is ARG with *n set. tokens may be NULL when max is 0.
// text is UTF-8 of `size` bytes; invalid bytes are encoded as bytes, nothing is
// lost: UNSUPPORTED if the vocabulary has no token for a byte that the text needs. Thread-safe on one model.
// SentencePiece models read U+2581 as a space, and most of them put a space before the text and after each control token.
TERN_API tern_status tern_tokenize(const tern_model *model, const char *text, size_t size, const tern_tokenize_params *params,
                                   int32_t *tokens, size_t max, size_t *n);

// The bytes of one token (not NUL-terminated, may be part of a UTF-8 character). Valid as long as the model. Special tokens
// have *size = 0 unless special is nonzero. ARG for an id outside the vocabulary.
TERN_API tern_status tern_token_bytes(const tern_model *model, int32_t token, int special, const char **bytes, size_t *size);

// Nonzero if the token ends an answer (EOS or end of turn).
TERN_API int tern_token_is_end(const tern_model *model, int32_t token);

// ---- Chat -----------------------------------------------------------------------------------------------

// The format of the model's chat template (tokenizer.chat_template): "chatml", "llama3", "bitnet", "mistral", "zephyr" or
// "phi3". NULL: it has none, or one that is none of these, or lacks the tokens for it.
TERN_API const char *tern_chat_format_name(const tern_model *model);

// One turn of a conversation: what the user says, with all that the format puts before, around and behind it.
typedef struct tern_chat_turn {
    size_t struct_size;
    const char *format; // a name as above; NULL: the model's own
    const char *system; // of system_size bytes, used where the conversation begins; NULL: what the model's ChatML template
    size_t system_size; // writes without one, if anything; not NULL, but of 0 bytes: none
    const char *user;   // of user_size bytes
    size_t user_size;
    int follows; // 0: the conversation begins. Nonzero: an answer stands before this turn, without the token that ended it
} tern_chat_turn;

// Tokens from the end of what the session holds to where the answer begins, so that only new ones are decoded. Markers of the
// format become special tokens; text of the user and the system that looks like them stays text. Sizes, errors and threads as
// for tern_tokenize; UNSUPPORTED also where tern_chat_format_name is NULL, or the format is unknown or lacks its tokens. llama3
// and bitnet templates cut white space (of ASCII) off both ends of a text, and so does this.
TERN_API tern_status tern_chat_tokenize(const tern_model *model, const tern_chat_turn *turn, int32_t *tokens, size_t max,
                                        size_t *n);

// ---- Decoding -------------------------------------------------------------------------------------------

// One sequence: its KV cache and its last logits. All memory is allocated (and touched) at creation.
typedef struct tern_session tern_session;

// How keys and values of the context are kept. docs/numerics.md has what each costs in bytes and changes in predictions.
typedef enum tern_kv_type {
    TERN_KV_F16 = 0,
    TERN_KV_INT8 = 1 // half the bytes: codes of 8 bits and a scale for each key and value of a head; attention in integers
} tern_kv_type;

typedef struct tern_session_params {
    size_t struct_size;
    size_t n_ctx; // tokens that the session can hold, 1..n_ctx_train; 0: n_ctx_train
    tern_kv_type kv;
} tern_session_params;

// params NULL: the defaults. Errors: ARG, MEMORY.
TERN_API tern_status tern_session_create(tern_model *model, tern_session **session, const tern_session_params *params);
TERN_API void tern_session_destroy(tern_session *session);
TERN_API size_t tern_session_length(const tern_session *session);
// Those tokens; valid until the session changes. NULL for a NULL session.
TERN_API const int32_t *tern_session_tokens(const tern_session *session);
TERN_API void tern_session_reset(tern_session *session);
// Forgets the tokens from `length` on, say drafts that were wrong: the next token is appended there. The logits are forgotten
// too. Errors: ARG (length above that of the session).
TERN_API tern_status tern_session_truncate(tern_session *session, size_t length);
// `to` holds the tokens and logits of `from` afterwards, instead of its own: several sequences go on from a prompt that was
// decoded once. A cancellation, a deadline and tern_session_set_top are not copied; logits are, with those that a screened head
// left out. Errors: ARG (two models, or two tern_kv_type; LongRoPE: a context below and one above the original one), FULL (more
// tokens than the context of `to`), STATE, as for tern_decode_batch. Not thread-safe per model.
TERN_API tern_status tern_session_copy(tern_session *to, const tern_session *from);

// Writes the session's tokens, keys and values to a file, which appears whole or not at all and replaces only one of its kind.
// It is readable by its owner alone, since it holds what was said. Errors: ARG, IO (also where something else has that name),
// MEMORY.
TERN_API tern_status tern_session_save(tern_session *session, const char *path);
// The session holds those tokens afterwards instead of its own, or the first n_ctx of them, and goes on with the bits of the
// saved one; logits come with the next decode. Model file, act_block and kv must be those of the saved session. Errors that
// leave the session as it was: ARG, UNSUPPORTED (another model, act_block, kv, rotation of LongRoPE or version of the format;
// the message has the remedy), FORMAT (no saved session, or a damaged header), IO (cannot be opened), MEMORY. Errors that leave
// it empty: FORMAT (damaged behind its header), IO (cannot be read).
TERN_API tern_status tern_session_restore(tern_session *session, const char *path);

// The one forward call. Token i is appended to sessions[i]; a session that occurs several times gets its tokens in that order,
// so a prompt is one call with its session repeated, and a batch of sequences is one call with different sessions.
// Afterwards each session that took part holds the logits of its last token. Any n >= 1 (long inputs run in slices).
// Errors: ARG (token id, model mismatch), FULL (nothing was decoded: lengths are unchanged), FORMAT (the weights made a NaN or
// an infinity: every session of the batch is reset, because its cache holds parts of the batch), CANCELLED (a session of the
// batch was stopped: see below), STATE (inside a region, or in a process forked after the context was created: nothing was
// decoded). Not thread-safe per model.
TERN_API tern_status tern_decode_batch(tern_model *model, tern_session *const sessions[], const int32_t tokens[], size_t n);

// The same for one session, with the logits after every token: logits[i * ld + v] for i < n, v < n_vocab; ld >= n_vocab. For
// measuring a model (perplexity): each token costs a product with the head. Errors: as tern_decode_batch.
TERN_API tern_status tern_decode_logits(tern_model *model, tern_session *session, const int32_t tokens[], size_t n,
                                        float *logits, size_t ld);

// The session needs only the `top` largest logits of each token (0, as at creation: all; ties count in full). A screened head
// then computes those that may be among them: their bits are those of the INT8 head, and each of the others, proven smaller, is
// -INFINITY. It does so for one session at a time and top <= 64, once it has seen 64 tokens; in other cases, with other heads
// and in tern_decode_logits all logits are there. Errors: ARG (NULL).
TERN_API tern_status tern_session_set_top(tern_session *session, size_t top);

// Logits [n_vocab] after the last decode; valid until the next. NULL before the first.
TERN_API const float *tern_session_logits(const tern_session *session);

// ---- Stopping a call ------------------------------------------------------------------------------------

// A session that is cancelled, or whose deadline has passed, stops the call in progress that it takes part in before that one's
// next layer, and later calls before they begin. Such a call returns CANCELLED, and nothing of it was appended to any session
// of its batch: lengths are what they were, what the sessions hold is intact, their logits are forgotten. Leave out the
// sessions that tern_session_stopped() names, and the others decode as if the call had not been. No call, not even a reset,
// ends this but tern_session_resume: a cancellation that comes between two calls is not lost.
typedef enum tern_stop { TERN_STOP_NONE = 0, TERN_STOP_CANCELLED = 1, TERN_STOP_DEADLINE = 2 } tern_stop;

// From any thread, or a signal handler, while the session lives.
TERN_API void tern_session_cancel(tern_session *session);
// `seconds` from now, in place of an earlier deadline; not above 0: it has passed. INFINITY, as at creation: none. From any
// thread. Errors: ARG (NaN).
TERN_API tern_status tern_session_set_deadline(tern_session *session, double seconds);
// Forgets a cancellation and the deadline.
TERN_API void tern_session_resume(tern_session *session);
// Why calls with this session stop, if they do. From any thread.
TERN_API tern_stop tern_session_stopped(const tern_session *session);

// ---- Sampling -------------------------------------------------------------------------------------------

typedef struct tern_sampler tern_sampler;

// Added to the logit of a token. -INFINITY bans it.
typedef struct tern_logit_bias {
    int32_t token;
    float bias;
} tern_logit_bias;

typedef struct tern_sampler_params {
    size_t struct_size;
    float temperature; // 0: greedy (the highest logit; the lowest id among equals)
    uint32_t top_k;    // 0: off
    float top_p;       // 0 or 1: off
    float min_p;       // 0: off
    uint64_t seed;
    const tern_logit_bias *biases; // n_biases of them, copied; those of one token add up
    size_t n_biases;
    float repeat_penalty; // 0 or 1: off. Else logits of the last repeat_last tokens are divided by it if positive, multiplied
                          // if not
    uint32_t repeat_last; // 0: 64
} tern_sampler_params;

// They apply in the order bias, repetition penalty, top-k, temperature, top-p, min-p, as documented in docs/numerics.md. Same
// seed, same tokens. Errors: ARG, MEMORY.
TERN_API tern_status tern_sampler_create(tern_model *model, tern_sampler **sampler, const tern_sampler_params *params);
TERN_API void tern_sampler_destroy(tern_sampler *sampler);

// Tokens that the repetition penalty counts as said, beside those that the sampler chose itself: a prompt. Errors: ARG.
TERN_API tern_status tern_sampler_accept(tern_sampler *sampler, const int32_t tokens[], size_t n);
// Forgets what was said; the random numbers go on.
TERN_API void tern_sampler_forget(tern_sampler *sampler);

// The next token from a session's logits. Errors: ARG, STATE (before the first decode), FORMAT (no usable logits: NaN or
// infinite).
TERN_API tern_status tern_sample(tern_sampler *sampler, const tern_session *session, int32_t *token);
// The same from logits[n_vocab] of tern_decode_logits.
TERN_API tern_status tern_sample_logits(tern_sampler *sampler, const float *logits, int32_t *token);

#ifdef __cplusplus
}
#endif
#endif
