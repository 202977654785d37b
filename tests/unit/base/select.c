/* select: what it moves to the front is what a full sort has there. */
#include "base/select.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define N 20000

static double unit(uint32_t trial, uint32_t what, uint32_t i)
{
    uint64_t z = ((uint64_t)trial << 40 | (uint64_t)what << 32 | i) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return (double)(z >> 11) * 0x1p-53;
}

static int heavier_first(const void *pa, const void *pb)
{
    const struct candidate *a = pa, *b = pb;
    if (a->value != b->value) return a->value > b->value ? -1 : 1;
    return a->id < b->id ? -1 : 1;
}

Test(select, finds_what_a_full_sort_finds)
{
    static struct candidate c[N], sorted[N], work[N];
    for (uint32_t trial = 0; trial < 300; trial++) {
        const double most[] = { 5, 1000, N }, steps = trial % 2 ? 50.0 : 1e7; /* many ties, or few */
        uint32_t n = 1 + (uint32_t)(unit(trial, 1, 0) * (most[trial % 3] - 1));
        double all = 0.0;
        for (uint32_t i = 0; i < n; i++) {
            c[i] = (struct candidate){ (float)(int)(unit(trial, 2, i) * steps), (int32_t)i };
            if (trial % 5 == 0 && c[i].value == 0.0f && i % 2) c[i].value = -0.0f;
            all += (double)c[i].value;
        }
        memcpy(sorted, c, sizeof(c));
        qsort(sorted, n, sizeof(*sorted), heavier_first);
        uint32_t k = (uint32_t)(unit(trial, 3, 0) * (n + 2));
        memcpy(work, c, sizeof(c));
        uint32_t got = select_top(work, n, k);
        cr_assert_eq(got, k < n ? k : n);
        select_sort(work, got);
        cr_assert_eq(memcmp(work, sorted, got * sizeof(*work)), 0, "top %u of %u", k, n);

        double mass = all * unit(trial, 4, 0), sum = 0.0;
        if (trial % 2) mass = floor(mass); /* values are whole: some first ones sum to just that */
        if (trial % 4 == 1) {
            mass = 0.0;
            for (uint32_t i = 0; i < k && i < n; i++) mass += (double)sorted[i].value;
        }
        uint32_t want = 0;
        while (want < n && (want == 0 || sum < mass)) sum += (double)sorted[want++].value;
        memcpy(work, c, sizeof(c));
        got = select_mass(work, n, mass);
        cr_assert_eq(got, want, "mass %g of %g in %u", mass, all, n);
        select_sort(work, got);
        cr_assert_eq(memcmp(work, sorted, got * sizeof(*work)), 0);
    }
}

Test(select, takes_values_of_any_sign)
{
    static struct candidate c[N], sorted[N];
    for (uint32_t i = 0; i < N; i++) sorted[i] = c[i] = (struct candidate){ (float)(unit(1, 2, i) - 0.7), (int32_t)i };
    qsort(sorted, N, sizeof(*sorted), heavier_first);
    cr_assert_eq(select_top(c, N, 15000), 15000);
    select_sort(c, 15000);
    cr_assert_eq(memcmp(c, sorted, 15000 * sizeof(*c)), 0);
}

/* The two zeros are equal, also where buckets sort them. */
Test(select, zeros_of_both_signs_go_by_their_ids)
{
    static struct candidate c[N];
    for (uint32_t i = 0; i < N; i++) c[i] = (struct candidate){ i % 2 ? 0.0f : -0.0f, (int32_t)i };
    cr_assert_eq(select_top(c, N, 7001), 7001);
    for (uint32_t i = 0; i < 7001; i++) cr_assert_lt(c[i].id, 7001);
}
