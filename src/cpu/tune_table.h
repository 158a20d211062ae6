// SPDX-License-Identifier: MIT
// The tuning table as text: what `tern tune` measured, by machine. Text is not trusted.
//
//   tern-tune 1
//   # n k scale_block m residency layout million_multiply_adds_per_second
//   machine avx2 2 0.1.0 AMD EPYC 7R13 Processor        a section: tier, threads, library version, CPU
//   4096 4096 0 1 dram m2 35210                          its rows
//   ...
//   end 57                                               lines before this one: a file that was cut is recognised
#ifndef TERN_CPU_TUNE_TABLE_H
#define TERN_CPU_TUNE_TABLE_H

#include "cpu/dispatch.h"

enum {
    TERN_TUNE_SPEED_MAX = 1000 * 1000 * 1000,
    TERN_TUNE_ROWS_MAX = 1024,
    TERN_TUNE_BYTES_MAX = 256 << 10,
    TERN_TUNE_LINE_MAX = 160,
    TERN_TUNE_VERSION_MAX = 24
};

// One measured product: m tokens with an n x k weight in some layout.
typedef struct tern_tune_row {
    size_t n, k;
    size_t scale_block; // 0: no ternary block scales
    size_t m;
    bool cached; // the weight was in cache, not in DRAM
    tern_layout layout;
    uint32_t speed; // million multiply-adds per second
} tern_tune_row;

// The machine that rows belong to.
typedef struct tern_tune_key {
    tern_tier tier;
    int threads;
    char version[TERN_TUNE_VERSION_MAX];
    char cpu[sizeof((tern_cpu *)NULL)->model];
} tern_tune_key;

typedef struct tern_tune_table {
    tern_tune_row rows[TERN_TUNE_ROWS_MAX];
    size_t n;
    int threads; // that they were measured with
} tern_tune_table;

typedef enum tern_tune_verdict {
    TERN_TUNE_FOUND,
    TERN_TUNE_NONE,   // nothing for this tier; nothing wrong either
    TERN_TUNE_STALE,  // only other CPUs or other versions of the library
    TERN_TUNE_DAMAGED // not a tuning table, or not whole
} tern_tune_verdict;

// Whether a file that begins with these bytes may be replaced: a tuning table, whole or not, of any version; or nothing.
bool tern_tune_is_ours(const char *text, size_t size);

// The key of this library on a CPU: its brand string without what would not stand in one line.
tern_tune_key tern_tune_key_of(const tern_cpu *cpu, tern_tier tier, int threads);

// Reads the rows of `key` into *table: the section of that machine whose number of threads is nearest. With STALE and DAMAGED
// *table is empty and `why` says in one line what is wrong.
tern_tune_verdict tern_tune_parse(const char *text, size_t size, const tern_tune_key *key, tern_tune_table *table,
                                  tern_error *why);

// Writes a whole file: rows for `key`, and after them the other machines' sections of `old` (which may be damaged, or NULL:
// nothing is then kept of it). Returns the number of bytes, or 0 if they are more than `room`.
size_t tern_tune_format(char *text, size_t room, const tern_tune_key *key, const tern_tune_row *rows, size_t n_rows,
                        const char *old, size_t old_size);

#endif
