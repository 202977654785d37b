/* kernel_check.c - random and extreme inputs, and buffers that notice a write outside of them. */
#include "helpers/kernel_check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 256
#define MARK  0xa5

struct guard_head {
    size_t bytes;
};

uint64_t check_next(struct check_rng *r)
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint32_t check_below(struct check_rng *r, uint32_t n)
{
    return (uint32_t)((check_next(r) >> 32) * n >> 32);
}

double check_unit(struct check_rng *r)
{
    return (double)(check_next(r) >> 11) * 0x1p-53;
}

float check_normal(struct check_rng *r)
{
    double sum = 0;
    for (int i = 0; i < 12; i++) sum += check_unit(r);
    return (float)(sum - 6);
}

void check_fill(struct check_rng *r, enum check_fill fill, float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float v = check_normal(r);
        switch (fill) {
        case FILL_ZERO: x[i] = 0; break;
        case FILL_SATURATE: x[i] = v < 0 ? -1.0f : 1.0f; break;
        case FILL_TINY: x[i] = check_below(r, 3) ? v * 1e-41f : 0; break;
        case FILL_HUGE: x[i] = i % 97 == 5 ? 3e38f : v * 1e30f; break;
        case FILL_MIXED: x[i] = v * powf(10, (float)check_below(r, 13) - 6); break;
        default: x[i] = v; break;
        }
    }
}

void *guard_alloc(size_t bytes)
{
    size_t all = GUARD + (bytes + 63) / 64 * 64 + GUARD;
    uint8_t *base = aligned_alloc(64, all);
    if (!base) abort();
    memset(base, MARK, all);
    memcpy(base, &(struct guard_head){ bytes }, sizeof(struct guard_head));
    memset(base + GUARD, 0, bytes);
    return base + GUARD;
}

bool guard_intact(const void *p)
{
    const uint8_t *base = (const uint8_t *)p - GUARD;
    struct guard_head head;
    memcpy(&head, base, sizeof(head));
    size_t all = GUARD + (head.bytes + 63) / 64 * 64 + GUARD;
    for (size_t i = sizeof(head); i < GUARD; i++)
        if (base[i] != MARK) return false;
    for (size_t i = GUARD + head.bytes; i < all; i++)
        if (base[i] != MARK) return false;
    return true;
}

void guard_free(void *p)
{
    if (p) free((uint8_t *)p - GUARD);
}

size_t check_differs(const void *a, const void *b, size_t n)
{
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i]) return i;
    return n;
}

/* fp16 bits of a positive normal value near `scale`. */
static uint16_t half_near(struct check_rng *r, float scale)
{
    int exp;
    double man = frexp(scale * (0.5 + check_unit(r)), &exp); /* [0.5, 1) */
    return (uint16_t)((uint32_t)(exp + 14) << 10 | (uint32_t)((man - 0.5) * 2048));
}

void check_weights(struct check_rng *r, uint32_t type, uint32_t block_elems, uint32_t block_bytes, void *dst, size_t n,
                   float scale)
{
    /* Where a block's fp16 scales are: GGUF's layouts. */
    static const struct {
        uint32_t type;
        int at[2];
    } halves[] = { { 2, { 0, -1 } },   { 3, { 0, 2 } },     { 6, { 0, -1 } },  { 7, { 0, 2 } },    { 8, { 0, -1 } },
                   { 10, { 80, 82 } }, { 11, { 108, -1 } }, { 12, { 0, 2 } },  { 13, { 0, 2 } },   { 14, { 208, -1 } },
                   { 16, { 0, -1 } },  { 17, { 0, -1 } },   { 18, { 0, -1 } }, { 19, { 0, -1 } },  { 20, { 0, -1 } },
                   { 21, { 0, -1 } },  { 22, { 0, -1 } },   { 23, { 0, -1 } }, { 34, { 52, -1 } }, { 35, { 64, -1 } } };
    uint8_t *p = dst;
    if (type >= 24 && type <= 27) { /* integers: any */
        for (size_t i = 0; i < n * block_bytes; i++) p[i] = (uint8_t)check_next(r);
        return;
    }
    if (block_elems == 1) {
        for (size_t i = 0; i < n; i++, p += block_bytes) {
            float v = check_normal(r) * scale;
            uint16_t h = (uint16_t)(half_near(r, scale) | (check_below(r, 2) ? 0x8000 : 0));
            double wide = (double)v * (1 + 1e-9);
            if (type == 30) memcpy(&h, (uint8_t *)&v + 2, 2);
            memcpy(p, block_bytes == 8 ? (void *)&wide : block_bytes == 4 ? (void *)&v : (void *)&h, block_bytes);
        }
        return;
    }
    for (size_t b = 0; b < n / block_elems; b++, p += block_bytes) {
        for (uint32_t i = 0; i < block_bytes; i++) p[i] = (uint8_t)check_next(r);
        if (type == 39) /* MXFP4's exponent: a usual one, or one of a subnormal scale */
            p[0] = (uint8_t)(check_below(r, 16) ? 118 + check_below(r, 8) : check_below(r, 2));
        if (type == 29) { /* IQ1_M's scale lies in the upper nibbles of four u16 */
            uint16_t h = half_near(r, scale);
            for (int k = 0; k < 4; k++) p[49 + 2 * k] = (uint8_t)((p[49 + 2 * k] & 15) | (h >> 4 * k & 15) << 4);
        }
        for (size_t t = 0; t < sizeof(halves) / sizeof(halves[0]); t++)
            for (int j = 0; halves[t].type == type && j < 2 && halves[t].at[j] >= 0; j++) {
                uint16_t h = half_near(r, scale);
                if (check_below(r, 2)) h |= 0x8000;
                memcpy(p + halves[t].at[j], &h, 2);
            }
    }
}
