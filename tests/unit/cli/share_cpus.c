/* share_cpus: threads and processors of one host, among nodes that name theirs and nodes that do not. */
#include "coordinator/cli/share_cpus.h"

#include "base/log.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static struct config cfg; /* nodes with these threads and processors; decode nodes first, as everywhere here */

static void nodes(uint32_t n_decode, uint32_t n_prefill, const uint32_t *threads, const char *const *cpus)
{
    log_init(LOG_LEVEL_ERROR, "test");
    cfg = (struct config){ .n_decode = n_decode, .n_prefill = n_prefill };
    for (uint32_t i = 0; i < n_decode + n_prefill; i++) {
        struct config_node *n = i < n_decode ? &cfg.decode[i] : &cfg.prefill[i - n_decode];
        n->threads = threads[i];
        n->cpus = (char *)(cpus ? cpus[i] : "");
    }
}

static uint32_t threads_of(uint32_t i)
{
    return i < cfg.n_decode ? cfg.decode[i].threads : cfg.prefill[i - cfg.n_decode].threads;
}

static uint32_t host_threads(void)
{
    struct cpu_list allowed;
    cpu_list_allowed(&allowed);
    return cpus_default_threads("", &allowed);
}

Test(share_cpus, serve_gives_each_node_half)
{
    static const uint32_t rows[][3] = {
        { 1, 1, 1 }, { 2, 1, 1 }, { 3, 1, 2 }, { 4, 2, 2 }, { 9, 4, 5 }
    }; /* all, decode, prefill */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        nodes(1, 1, (const uint32_t[]){ 77, rows[i][0] }, NULL);
        share_threads_of_host(&cfg);
        cr_assert(cfg.decode[0].threads == rows[i][1] && cfg.prefill[0].threads == rows[i][2], "%u: %u %u", rows[i][0],
                  cfg.decode[0].threads, cfg.prefill[0].threads);
    }
    nodes(1, 1, (const uint32_t[]){ 0, 0 }, NULL);
    share_threads_of_host(&cfg);
    uint32_t all = host_threads();
    cr_assert_eq(cfg.decode[0].threads + cfg.prefill[0].threads, all > 1 ? all : 2);
}

Test(share_cpus, nodes_without_threads_share_what_is_left)
{
    uint32_t all = host_threads();
    nodes(2, 1, (const uint32_t[]){ 0, 0, 0 }, NULL);
    share_threads(&cfg);
    uint32_t left = all;
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t want = left / (3 - i) ? left / (3 - i) : 1;
        cr_assert_eq(threads_of(i), want, "%u: %u of %u", i, threads_of(i), all);
        left -= left < want ? left : want;
    }
    nodes(2, 1, (const uint32_t[]){ 0, all + 5, 0 }, NULL); /* one takes all: the others have one each */
    share_threads(&cfg);
    cr_assert(threads_of(0) == 1 && threads_of(1) == all + 5 && threads_of(2) == 1);
    nodes(1, 1, (const uint32_t[]){ 0, 0 }, (const char *const[]){ "0", "" }); /* its processors are its threads */
    share_threads(&cfg);
    cr_assert(threads_of(0) == 0 && threads_of(1) == (all > 1 ? all - 1 : 1), "%u %u", threads_of(0), threads_of(1));
}

Test(share_cpus, sets_are_disjoint_and_away_from_those_that_nodes_own)
{
    static struct cpu_list sets[2 * CONFIG_MAX_NODES], allowed;
    char first[16];
    cpu_list_allowed(&allowed);
    if (allowed.n < 2) cr_skip("one processor cannot be shared");
    nodes(1, 1, (const uint32_t[]){ 1, 1 }, NULL);
    share_cpus(&cfg, sets);
    cr_assert(sets[0].n >= 1 && sets[1].n >= 1 && sets[0].n + sets[1].n <= allowed.n);
    for (uint32_t i = 0; i < sets[0].n; i++) cr_assert_not(cpu_list_has(&sets[1], sets[0].ids[i]));

    snprintf(first, sizeof(first), "%u", allowed.ids[0]);
    nodes(1, 1, (const uint32_t[]){ 1, 1 }, (const char *const[]){ first, "" });
    share_cpus(&cfg, sets);
    cr_assert_eq(sets[0].n, 0, "it owns its own already");
    cr_assert(sets[1].n >= 1 && !cpu_list_has(&sets[1], allowed.ids[0]));

    /* too many threads: no sets of their own, but away from an owner */
    nodes(1, 1, (const uint32_t[]){ 100000, 100000 }, NULL);
    share_cpus(&cfg, sets);
    cr_assert(sets[0].n == 0 && sets[1].n == 0);
    nodes(1, 2, (const uint32_t[]){ 1, 100000, 100000 }, (const char *const[]){ first, "", "" });
    share_cpus(&cfg, sets);
    cr_assert(sets[0].n == 0 && sets[1].n == allowed.n - 1 && sets[2].n == allowed.n - 1);
    cr_assert_not(cpu_list_has(&sets[1], allowed.ids[0]));
}
