/* select.c - quickselect by count and by mass; the order of candidates is total, so the sets are unique.
 *
 * Of many, a pass over buckets of nearly equal values leaves those of one bucket to be looked at closely. */
#include "base/select.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define MANY    4096 /* above it buckets are worth their pass */
#define BUCKETS 4096 /* by sign, exponent and three more bits */

struct buckets {
    uint32_t count[BUCKETS];
    double mass[BUCKETS];
};

/* Rises with the value. */
static uint32_t bucket_of(float value)
{
    uint32_t bits;
    value += 0.0f; /* the two zeros are equal */
    memcpy(&bits, &value, sizeof(bits));
    bits ^= bits >> 31 ? UINT32_MAX : 1u << 31;
    return bits >> 20;
}

static void fill(struct buckets *b, const struct candidate *c, uint32_t n)
{
    memset(b, 0, sizeof(*b));
    for (uint32_t i = 0; i < n; i++) {
        const uint32_t at = bucket_of(c[i].value);
        b->count[at]++;
        b->mass[at] += (double)c[i].value;
    }
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* Leaves those of bucket `last` and of higher ones, the latter in front; returns how many these are, and in *n how many
 * all are. */
static uint32_t keep_from(struct candidate *c, uint32_t *n, uint32_t last)
{
    uint32_t kept = 0, higher = 0;
    for (uint32_t i = 0; i < *n; i++) {
        const struct candidate x = c[i];
        c[kept] = x; /* no branch that could be mispredicted */
        kept += bucket_of(x.value) >= last;
    }
    for (uint32_t i = 0; i < kept; i++)
        if (bucket_of(c[i].value) > last) swap(&c[higher++], &c[i]);
    *n = kept;
    return higher;
}

/* The middle of three, so that sorted input is not the worst case; the heavier of two. */
static struct candidate pivot_of(const struct candidate *c, uint32_t n)
{
    const struct candidate *a = &c[0], *b = &c[n / 2], *d = &c[n - 1];
    if (n == 2) return is_heavier(a, b) ? *a : *b;
    if (is_heavier(a, b)) return is_heavier(b, d) ? *b : is_heavier(a, d) ? *d : *a;
    return is_heavier(a, d) ? *a : is_heavier(b, d) ? *d : *b;
}

/* Moves all that are at least as heavy as the pivot to the front; returns their number, 1 <= m < n: of two or more,
 * none of which equals another, the pivot is not the lightest. */
static uint32_t partition(struct candidate *c, uint32_t n)
{
    struct candidate p = pivot_of(c, n);
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!is_heavier(&p, &c[i])) swap(&c[m++], &c[i]);
    assert(m < n);
    return m;
}

/* Those of the buckets above the one where the k-th lies are in front. */
static uint32_t narrow_top(struct candidate *c, uint32_t *n, uint32_t k)
{
    struct buckets b;
    uint32_t last = BUCKETS - 1, sum = 0;
    fill(&b, c, *n);
    while (last > 0 && sum + b.count[last] < k) sum += b.count[last--];
    return keep_from(c, n, last);
}

uint32_t select_top(struct candidate *c, uint32_t n, uint32_t k)
{
    uint32_t base = 0;
    if (k >= n) return n;
    if (n > MANY) base = narrow_top(c, &n, k);
    uint32_t want = k - base;
    n -= base;
    while (n > 1 && want > 0) {
        uint32_t m = partition(c + base, n);
        if (m <= want) {
            base += m;
            n -= m;
            want -= m;
        } else {
            n = m;
        }
    }
    return k;
}

static uint32_t narrow_mass(struct candidate *c, uint32_t *n, double *left)
{
    struct buckets b;
    uint32_t last = BUCKETS - 1;
    fill(&b, c, *n);
    for (; last > 0 && (b.count[last] == 0 || b.mass[last] < *left); last--) *left -= b.mass[last];
    return keep_from(c, n, last);
}

uint32_t select_mass(struct candidate *c, uint32_t n, double mass)
{
    uint32_t base = 0;
    double left = mass;
    if (n > MANY) base = narrow_mass(c, &n, &left);
    n -= base;
    while (n > 1) {
        uint32_t m = partition(c + base, n);
        double sum = 0.0;
        for (uint32_t i = 0; i < m; i++) sum += (double)c[base + i].value;
        if (sum >= left && m == 1) return base + 1;
        if (sum >= left) {
            n = m;
        } else {
            left -= sum;
            base += m;
            n -= m;
        }
    }
    return base + n;
}

static int by_value(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    return is_heavier(a, b) ? -1 : is_heavier(b, a) ? 1 : 0;
}

void select_sort(struct candidate *c, uint32_t n)
{
    qsort(c, n, sizeof(*c), by_value);
}
