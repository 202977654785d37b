/* unroll.h - asks the compiler to write out the short loop that follows, so that arrays become registers. */
#ifndef COMPUTE_CPU_UNROLL_H
#define COMPUTE_CPU_UNROLL_H

#ifdef __clang__
/* Where a level has no vectors to keep in registers, a loop may stay one. */
#pragma clang diagnostic ignored "-Wpass-failed"
#define UNROLL   _Pragma("clang loop unroll(full)")
#define UNROLL16 UNROLL
#else
#define UNROLL   _Pragma("GCC unroll 8")
#define UNROLL16 _Pragma("GCC unroll 16")
#endif
#endif
