// SPDX-License-Identifier: MIT
// Loop unrolling that both compilers obey: arrays of vectors become registers only where their loops are fully unrolled.
#ifndef TERN_KERNELS_UNROLL_H
#define TERN_KERNELS_UNROLL_H

#if defined(__clang__)
#define TERN_UNROLL _Pragma("clang loop unroll(full)")
#define TERN_NO_UNROLL _Pragma("clang loop unroll(disable)")
#else
#define TERN_UNROLL _Pragma("GCC unroll 16")
#define TERN_NO_UNROLL _Pragma("GCC unroll 1")
#endif

#endif
