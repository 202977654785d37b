/* memory_plan: weights go where they fit, and what fits nowhere is refused with the numbers. */
#include "model/memory_plan.h"

#include <criterion/criterion.h>
#include <stdio.h>

#define MIB (1ull << 20)

Test(memory_plan, follows_the_table)
{
    static const struct {
        enum weights_mode asked;
        uint64_t left_mib;
        enum status st;
        enum weights_mode got;
    } CASES[] = {
        { WEIGHTS_RESIDENT, 1150, OK, WEIGHTS_RESIDENT }, { WEIGHTS_RESIDENT, 1149, ERR_NO_MEMORY, WEIGHTS_RESIDENT },
        { WEIGHTS_STREAM, 250, OK, WEIGHTS_STREAM },      { WEIGHTS_STREAM, 249, ERR_NO_MEMORY, WEIGHTS_STREAM },
        { WEIGHTS_STREAM, 9000, OK, WEIGHTS_STREAM },     { WEIGHTS_AUTO, 1250, OK, WEIGHTS_RESIDENT },
        { WEIGHTS_AUTO, 1249, OK, WEIGHTS_STREAM },       { WEIGHTS_AUTO, 249, ERR_NO_MEMORY, WEIGHTS_STREAM },
    };
    const struct memory_need need = {
        .resident = 1000 * MIB, .stream = 100 * MIB, .kv = 120 * MIB, .buffers = 30 * MIB
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct host_memory left = { CASES[i].left_mib * MIB, "memory.max of control group /a" };
        enum weights_mode mode = CASES[i].asked;
        struct error err = { 0 };
        cr_assert_eq(memory_plan(&mode, &need, &left, &err), CASES[i].st, "case %zu: %s", i, err.text);
        cr_assert_eq(mode, CASES[i].got, "case %zu", i);
        if (CASES[i].st == OK) continue;
        char want[256];
        snprintf(want, sizeof(want),
                 "weights (1000.0 MiB, 100.0 MiB if streamed): %u.0 MiB of memory are needed beside 150.0 MiB (KV "
                 "120.0 MiB, step buffers 30.0 MiB), %llu.0 MiB are available (memory.max of control group /a)",
                 mode == WEIGHTS_STREAM ? 100 : 1000, (unsigned long long)CASES[i].left_mib);
        cr_assert_str_eq(err.text, want);
    }
}

Test(memory_plan, sums_that_overflow_do_not_fit)
{
    const struct memory_need need = { .resident = UINT64_MAX - 5, .stream = MIB, .kv = 10, .buffers = 10 };
    const struct host_memory left = { UINT64_MAX, "no limit" };
    enum weights_mode mode = WEIGHTS_AUTO;
    cr_assert_eq(memory_plan(&mode, &need, &left, NULL), OK);
    cr_assert_eq(mode, WEIGHTS_STREAM);
}
