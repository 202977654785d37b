/* hash_lru: finds what was added, names the least recently used one, and loses no slot. */
#include "kv/hash_lru.h"

#include <criterion/criterion.h>

static struct prefix_hash hash_of(uint64_t i)
{
    return (struct prefix_hash){ i * 77, i % 5 }; /* many share a bucket */
}

Test(hash_lru, the_one_used_longest_ago_is_in_the_way)
{
    struct hash_lru l;
    uint32_t slots[4];
    cr_assert_eq(hash_lru_init(&l, 4), OK);
    for (uint64_t i = 0; i < 4; i++) {
        cr_assert_eq(hash_lru_in_the_way(&l), HASH_LRU_NONE);
        struct prefix_hash h = hash_of(i);
        slots[i] = hash_lru_add(&l, &h);
    }
    hash_lru_touch(&l, slots[0]);
    for (int i = 1; i < 4; i++) {
        cr_assert_eq(hash_lru_in_the_way(&l), slots[i]);
        hash_lru_touch(&l, slots[i]);
    }
    cr_assert_eq(hash_lru_in_the_way(&l), slots[0]);
    hash_lru_fini(&l);
}

/* Against a plain list of what should be there. */
Test(hash_lru, stands_against_a_list)
{
    enum { N = 7, KEYS = 20 };
    struct hash_lru l;
    uint64_t used[KEYS] = { 0 }, state = 1;
    uint32_t n = 0;
    cr_assert_eq(hash_lru_init(&l, N), OK);
    for (uint64_t now = 1; now < 20000; now++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        uint64_t key = (state >> 33) % KEYS, oldest = 0;
        struct prefix_hash h = hash_of(key);
        uint32_t slot = hash_lru_find(&l, &h), way = hash_lru_in_the_way(&l);
        for (uint64_t k = 1; k < KEYS; k++)
            if (used[k] && (!used[oldest] || used[k] < used[oldest])) oldest = k;
        cr_assert_eq(slot != HASH_LRU_NONE, used[key] > 0);
        cr_assert_eq(way == HASH_LRU_NONE, n < N);
        if (slot != HASH_LRU_NONE && (state >> 20) % 3 == 0) {
            hash_lru_remove(&l, slot);
            used[key] = 0;
            n--;
            continue;
        }
        if (slot != HASH_LRU_NONE) {
            hash_lru_touch(&l, slot);
        } else {
            if (way != HASH_LRU_NONE) {
                struct prefix_hash was = hash_of(oldest);
                cr_assert_eq(hash_lru_find(&l, &was), way);
                hash_lru_remove(&l, way);
                used[oldest] = 0;
                n--;
            }
            hash_lru_add(&l, &h);
            n++;
        }
        used[key] = now;
        cr_assert_eq(l.n_used, n);
    }
    hash_lru_fini(&l);
}
