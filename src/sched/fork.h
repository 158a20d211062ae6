// SPDX-License-Identifier: MIT
// Notices fork(): a child has the memory of its parent's pools, but none of their threads.
#ifndef TERN_SCHED_FORK_H
#define TERN_SCHED_FORK_H

#include <stdbool.h>

// Starts counting forks, once for the process. False: no memory.
bool tern_fork_watch(void);

// Number of forks between this process and the first that watched. It differs from a pool's number in any child.
// A counter, because asking the system for the process id costs a fifth of a microsecond on each region.
unsigned tern_fork_generation(void);

#endif
