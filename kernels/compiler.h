// SPDX-License-Identifier: MIT
// What gcc and clang need to be told to keep arrays of vector sums in registers, and the marks of the speed gate.
#ifndef TERN_KERNELS_COMPILER_H
#define TERN_KERNELS_COMPILER_H

// TERN_UNROLL: arrays of vectors become registers only where their loops are fully unrolled.
// TERN_LOADED(v): v is in a register from here on; gcc else loads it again as the memory operand of each of its uses.
// TERN_IN_ORDER(a, b): what follows is loaded after the vectors a and b are computed; clang else loads early, and spills.
// TERN_IN_PLACE(instruction, plain): one update of a sum. gcc 12 regroups, copies and spills sums written as intrinsics, so it
// gets the instruction as asm; clang keeps them in place by itself and schedules them better when it sees them.
#if defined(__clang__)
#define TERN_UNROLL _Pragma("clang loop unroll(full)")
#define TERN_NO_UNROLL _Pragma("clang loop unroll(disable)")
#define TERN_IN_PLACE(instruction, plain) plain
#define TERN_LOADED(v) ((void)0)
#define TERN_IN_ORDER(a, b) __asm__ volatile("" : "+x"(a), "+x"(b) : : "memory")
#else
#define TERN_UNROLL _Pragma("GCC unroll 16")
#define TERN_NO_UNROLL _Pragma("GCC unroll 1")
#define TERN_IN_PLACE(instruction, plain) instruction
#define TERN_LOADED(v) __asm__("" : "+x"(v))
#define TERN_IN_ORDER(a, b) ((void)0)
#endif

// TERN_COST_LOOP("name", n, m, k): the loop around this, in one round, multiplies k weights of n features with m tokens. The
// sizes are constants once the function is inlined. For tools/kernel_cost.py: a record in a section that linkers leave out, no
// instruction.
#ifdef __OPTIMIZE__
#define TERN_COST_LOOP(name, n, m, k)                                                                                          \
    __asm__ inline volatile(".pushsection .tern_cost,\"e\"\n\t.quad 661f\n\t.long %c0, %c1, %c2\n\t.asciz \"" name             \
                            "\"\n\t.popsection\n661:"                                                                          \
                            :                                                                                                  \
                            : "i"(n), "i"(m), "i"(k))
#else
#define TERN_COST_LOOP(name, n, m, k) ((void)0)
#endif

#endif
