/* select.c - quickselect by count and by mass; the order of candidates is total, so the sets are unique. */
#include "engine/select.h"

#include <stdbool.h>
#include <stdlib.h>

static bool heavier(const struct candidate *a, const struct candidate *b)
{
    return a->weight > b->weight || (a->weight == b->weight && a->id < b->id);
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;
    *a = *b;
    *b = t;
}

/* The middle of three, so that sorted input is not the worst case. */
static struct candidate pivot_of(const struct candidate *c, uint32_t n)
{
    const struct candidate *a = &c[0], *b = &c[n / 2], *d = &c[n - 1];
    if (heavier(a, b)) return heavier(b, d) ? *b : heavier(a, d) ? *d : *a;
    return heavier(a, d) ? *a : heavier(b, d) ? *d : *b;
}

/* Moves all that are at least as heavy as the pivot to the front; returns their number, 1 <= m. */
static uint32_t partition(struct candidate *c, uint32_t n)
{
    struct candidate p = pivot_of(c, n);
    uint32_t m = 0;
    for (uint32_t i = 0; i < n; i++)
        if (!heavier(&p, &c[i])) swap(&c[m++], &c[i]);
    return m;
}

static uint32_t heaviest_of(const struct candidate *c, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (heavier(&c[i], &c[best])) best = i;
    return best;
}

uint32_t select_top(struct candidate *c, uint32_t n, uint32_t k)
{
    uint32_t base = 0;
    if (k >= n) return n;
    uint32_t want = k;
    while (n > 1 && want > 0) {
        uint32_t m = partition(c + base, n);
        if (m == n) { /* the pivot is the lightest: it goes last, the rest goes on */
            for (uint32_t i = 0; i + 1 < n; i++)
                if (heavier(&c[base + n - 1], &c[base + i])) swap(&c[base + n - 1], &c[base + i]);
            if (want >= n - 1) return k;
            n--;
        } else if (m <= want) {
            base += m;
            n -= m;
            want -= m;
        } else {
            n = m;
        }
    }
    return k;
}

uint32_t select_mass(struct candidate *c, uint32_t n, double mass)
{
    uint32_t base = 0;
    double left = mass;
    while (n > 1) {
        uint32_t m = partition(c + base, n);
        if (m == n) { /* the pivot is the lightest: take the heaviest by itself, the rest goes on */
            swap(&c[base], &c[base + heaviest_of(c + base, n)]);
            m = 1;
        }
        double sum = 0.0;
        for (uint32_t i = 0; i < m; i++) sum += (double)c[base + i].weight;
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

static int by_weight(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    return heavier(a, b) ? -1 : heavier(b, a) ? 1 : 0;
}

void select_sort(struct candidate *c, uint32_t n)
{
    qsort(c, n, sizeof(*c), by_weight);
}
