// SPDX-License-Identifier: MIT
// How many CPUs the cgroups of this process pay for.
#ifndef TERN_SCHED_QUOTA_H
#define TERN_SCHED_QUOTA_H

#include "base/base.h"

// Thousandths of a CPU, at least 1; 0: no quota, or none that can be read. The smallest of the process's cgroup and its
// ancestors counts, in cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us, cpu.cfs_period_us).
// root: put before /proc/self/cgroup, /proc/self/mountinfo and every mount point; "" is the running system. Files are not
// trusted: what is damaged, too long or leads out of the mount is no quota.
int tern_quota_millis(const char *root);

#endif
