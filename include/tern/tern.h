// SPDX-License-Identifier: MIT
// Core of the public API: status codes, version, and the context every other call takes.
//
// Conventions, everywhere in Tern: M tokens (rows of X and Y), N output features (rows of W), K depth.
//   Y[M][N] = X[M][K] . W[N][K]^T, all row-major; leading dimensions (ldx, ldw, ldy) are in elements.
// Every call that can fail returns a tern_status and leaves its outputs untouched on failure, unless it says otherwise.
// No call prints, exits or aborts. *_destroy accepts NULL; a NULL context or model is ARG without a message.
// Destroy what was made with a context before the context; weights alone may outlive it.
#ifndef TERN_TERN_H
#define TERN_TERN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TERN_API __attribute__((visibility("default")))

#define TERN_VERSION_MAJOR 0
#define TERN_VERSION_MINOR 1
#define TERN_VERSION_PATCH 0

typedef enum tern_status {
    TERN_OK = 0,
    TERN_ERR_ARG = 1,         // a parameter is outside its documented range
    TERN_ERR_MEMORY = 2,      // an allocation failed, or a size does not fit size_t
    TERN_ERR_UNSUPPORTED = 3, // well-formed, but this library cannot do it (type, architecture, layout)
    TERN_ERR_FORMAT = 4,      // a file is damaged or is not what it says
    TERN_ERR_IO = 5,          // the operating system refused a file operation
    TERN_ERR_CPU = 6,         // the CPU or the OS lacks an instruction set that was asked for
    TERN_ERR_THREADS = 7,     // no call returns this now: threads that are refused are a warning
    TERN_ERR_FULL = 8,        // a session's context has no room for the tokens
    TERN_ERR_STATE = 9,       // a call out of order, e.g. logits before the first decode
    TERN_ERR_CANCELLED = 10   // a session was cancelled, or its deadline has passed; or a save was cancelled
} tern_status;

// Static, never NULL: a short English name of a status.
TERN_API const char *tern_status_string(tern_status status);

// Static, "MAJOR.MINOR.PATCH" of the library that is running (not of this header).
TERN_API const char *tern_version(void);

// One tile of work. Tiles of one stage may run in any order, on any thread, each exactly once.
typedef void (*tern_tile_fn)(void *arg, size_t tile);

// Runs fn(arg, 0) ... fn(arg, n_tiles - 1), each exactly once, and returns when all have returned. n_tiles >= 2: a single tile
// is run by the thread that called Tern.
typedef void (*tern_parallel_for_fn)(void *user, tern_tile_fn fn, void *arg, size_t n_tiles);

// All of Tern's heap memory goes through this when given, except short-lived work of tern_tokenize (which several threads may
// call) and of hwloc at creation: those use malloc. alloc returns memory aligned to `align`
// (a power of two, at most 4096) or NULL; free gets the same size back. Both are called from the thread
// that made the Tern call, never from inside a parallel region.
typedef struct tern_allocator {
    void *(*alloc)(void *user, size_t size, size_t align);
    void (*free)(void *user, void *ptr, size_t size);
    void *user;
} tern_allocator;

enum { TERN_THREADS_MAX = 1024 };

// Set struct_size = sizeof(tern_context_params); zero means default for every other field.
// Precedence: this struct, then the environment (read once, here), then the default.
typedef struct tern_context_params {
    size_t struct_size;
    int threads;     // 1..TERN_THREADS_MAX; 0: $TERN_THREADS, else one per allowed physical core (pin "all": per CPU), and no
                     // more than a container's CPU quota pays for, rounded
    const char *isa; // highest tier to use: scalar|avx2|avx512|avx512vnni|avx512vbmi; NULL: $TERN_ISA, else the CPU's best
    int no_pinning;  // nonzero: the same as pin = "none"
    tern_parallel_for_fn parallel_for; // when given, Tern creates no thread; `threads` tells how many it has: weights are
                                       // laid out and divided for as many. Its threads need 256 KiB of stack
    void *parallel_for_user;
    const tern_allocator *allocator; // copied; NULL: the C library (large blocks: huge pages where the system gives them)
    char *error;                     // when creation fails, receives one line that names the cause and the fix (but for a
                                     // struct_size that is not set, which leaves nothing to trust here)
    size_t error_size;
    const char *tune; // tuning table (tune.h): a path, or "off"; NULL: $TERN_TUNE, else the user's cache folder
    // Which CPUs the workers are bound to: "compact" (one per physical core, one L3 after the other), "spread" (one per
    // physical core, NUMA nodes and L3s in turn), "all" (every CPU, hardware threads of a core next to each other), "none" (not
    // bound). NULL: $TERN_PIN, else compact; but none under a CPU quota below the number of cores, which others then use, too.
    const char *pin;
} tern_context_params;

// A detected CPU, the kernels chosen for it, and a pool of pinned workers.
// One context serves one calling thread at a time; several contexts are independent.
typedef struct tern_context tern_context;

// params may be NULL (all defaults). The caller owns *ctx and frees it with tern_context_destroy.
// Threads or bindings that the system refuses, and a machine that hwloc cannot read, are no errors: the context does with less,
// and tern_context_warning() says so. Errors: ARG (threads, isa, pin), CPU (isa above the CPU), MEMORY.
TERN_API tern_status tern_context_create(tern_context **ctx, const tern_context_params *params);
TERN_API void tern_context_destroy(tern_context *ctx);

// The detailed message of the last call that failed on this context; "" if none has. Valid until the next call.
TERN_API const char *tern_context_error(const tern_context *ctx);

// What creation had to do without, with the remedy; "" if nothing. One line, of several reasons if there are: threads or
// bindings that the system refused, a topology that could not be read, a tuning table that is damaged or of another machine.
// Valid as long as the context. Tern prints nothing by itself.
TERN_API const char *tern_context_warning(const tern_context *ctx);

// Number of threads that take part in a region, the caller included.
TERN_API int tern_context_threads(const tern_context *ctx);

// A stage is n_tiles calls of fn. A region is a list of stages that run one after the other: every tile of
// stage i has returned before a tile of stage i + 1 starts, and its writes are visible there.
// The whole list costs one wake-up of the workers. The calling thread works too.
typedef struct tern_stage {
    tern_tile_fn fn;
    void *arg;
    size_t n_tiles;   // at most INT64_MAX; 0 is allowed: the stage is skipped
    const char *name; // for traces and counters, a static string; NULL: unnamed
} tern_stage;

// Runs a region on the context's workers, or through its parallel_for (one call per stage). Not reentrant:
// a tile must not call Tern with the same context. Errors: ARG (NULL fn, n_tiles), STATE (called from inside a region, or in a
// process forked after the context was created: threads do not survive fork; a new context works there).
TERN_API tern_status tern_run_region(tern_context *ctx, const tern_stage *stages, size_t n_stages);

#ifdef __cplusplus
}
#endif
#endif
