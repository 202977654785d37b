/* bytes.h - a view of foreign bytes that is read only through checks.
 *
 * A reader moves a cursor over a view and never past its end: each get returns false, and leaves
 * the cursor and the result alone, when too few bytes are left.  Little-endian throughout. */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes { /* borrows; the owner stands beside each use */
    const uint8_t *p;
    size_t n;
};

struct reader {
    const uint8_t *base;
    size_t n;   /* bytes in all */
    size_t pos; /* next byte to read, <= n */
};

static inline struct bytes bytes_of(const void *p, size_t n)
{
    return (struct bytes){ (const uint8_t *)p, n };
}

static inline bool bytes_eq(struct bytes a, const void *p, size_t n)
{
    return a.n == n && (n == 0 || memcmp(a.p, p, n) == 0);
}

static inline struct reader reader_of(struct bytes b)
{
    return (struct reader){ b.p, b.n, 0 };
}

static inline size_t reader_left(const struct reader *r)
{
    return r->n - r->pos;
}

/* Takes the next n bytes as a view into the same memory. */
static inline bool reader_take(struct reader *r, uint64_t n, struct bytes *out)
{
    if (n > reader_left(r)) return false;
    *out = (struct bytes){ r->base + r->pos, (size_t)n };
    r->pos += (size_t)n;
    return true;
}

static inline bool reader_copy(struct reader *r, void *dst, size_t n)
{
    if (n > reader_left(r)) return false;
    memcpy(dst, r->base + r->pos, n);
    r->pos += n;
    return true;
}

static inline bool reader_u32(struct reader *r, uint32_t *out)
{
    return reader_copy(r, out, 4);
}
static inline bool reader_u64(struct reader *r, uint64_t *out)
{
    return reader_copy(r, out, 8);
}

/* a*b and a+b of sizes that come from outside: false when they do not fit. */
static inline bool size_mul(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_mul_overflow(a, b, out);
}

static inline bool size_add(uint64_t a, uint64_t b, uint64_t *out)
{
    return !__builtin_add_overflow(a, b, out);
}
#endif
