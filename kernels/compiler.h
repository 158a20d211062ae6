// SPDX-License-Identifier: MIT
// What gcc and clang need to be told to keep arrays of vector sums in registers.
#ifndef TERN_KERNELS_COMPILER_H
#define TERN_KERNELS_COMPILER_H

// TERN_UNROLL: arrays of vectors become registers only where their loops are fully unrolled.
// TERN_IN_PLACE(instruction, plain): one update of a sum. gcc 12 regroups, copies and spills sums written as intrinsics, so it
// gets the instruction as asm; clang keeps them in place by itself and schedules them better when it sees them.
#if defined(__clang__)
#define TERN_UNROLL _Pragma("clang loop unroll(full)")
#define TERN_NO_UNROLL _Pragma("clang loop unroll(disable)")
#define TERN_IN_PLACE(instruction, plain) plain
#else
#define TERN_UNROLL _Pragma("GCC unroll 16")
#define TERN_NO_UNROLL _Pragma("GCC unroll 1")
#define TERN_IN_PLACE(instruction, plain) instruction
#endif

#endif
