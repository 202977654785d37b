/* kernel_check.h - inputs and guarded buffers for tests that hold a kernel against its reference. */
#ifndef TESTS_HELPERS_KERNEL_CHECK_H
#define TESTS_HELPERS_KERNEL_CHECK_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct check_rng {
    uint64_t state;
};

enum check_fill {
    FILL_NORMAL, /* about N(0, 1) */
    FILL_ZERO,
    FILL_SATURATE, /* +1 and -1 only: every quantized value is +-127 */
    FILL_TINY,     /* subnormals and zeros */
    FILL_HUGE,     /* around 1e30, and one outlier a row */
    FILL_MIXED,    /* magnitudes from 1e-6 to 1e6 */
    FILL_COUNT
};

uint64_t check_next(struct check_rng *r);
uint32_t check_below(struct check_rng *r, uint32_t n);
double check_unit(struct check_rng *r); /* [0, 1) */
float check_normal(struct check_rng *r);
void check_fill(struct check_rng *r, enum check_fill fill, float *x, size_t n);

/* Zero-filled memory, 64-byte aligned, with a pattern before and behind it. */
void *guard_alloc(size_t bytes);
bool guard_intact(const void *p);
void guard_free(void *p);

/* Index of the first byte where a and b differ, or n. */
size_t check_differs(const void *a, const void *b, size_t n);

/* GGUF data of n elements with random codes and scales of about `scale`; `type` is a GGUF type number. */
void check_weights(struct check_rng *r, uint32_t type, uint32_t block_elems, uint32_t block_bytes, void *dst, size_t n,
                   float scale);
#endif
