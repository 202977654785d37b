/* memory_plan: weights go where they fit, and what fits nowhere is refused with the numbers. */
#include "model/memory_plan.h"

#include "helpers/file_tree.h"

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

static void expect_left(uint64_t mib, const char *from)
{
    struct host_memory m;
    char proc[96], cgroup[96];
    snprintf(proc, sizeof(proc), "%s/proc", tree_root);
    snprintf(cgroup, sizeof(cgroup), "%s/cgroup", tree_root);
    host_memory_read(&m, proc, cgroup);
    cr_assert_eq(m.bytes, mib * MIB, "%llu bytes of %s", (unsigned long long)m.bytes, m.from);
    cr_assert_str_eq(m.from, from);
}

Test(host_memory, is_the_tightest_of_all_limits, .init = tree_make, .fini = tree_remove)
{
    tree_put("proc/meminfo", "MemTotal:  9999999 kB\nMemAvailable:    2097152 kB\n");
    expect_left(2048, "MemAvailable");
    /* Version 2: the group itself is wide, one above it is not; its page cache can be dropped. */
    tree_put("proc/self/cgroup", "0::/up/own\n");
    tree_put("cgroup/up/own/memory.max", "max\n");
    tree_put("cgroup/up/memory.max", "1073741824\n");
    tree_put("cgroup/up/memory.current", "536870912\n");
    expect_left(512, "memory.max of control group /up");
    tree_put("cgroup/up/memory.stat", "anon 1\ninactive_file 104857600\n");
    expect_left(612, "memory.max of control group /up");
    /* Version 1, and a container whose path is the host's. */
    tree_put("proc/self/cgroup", "9:name=systemd:/\n4:memory:/docker/abc\n");
    tree_put("cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    expect_left(2048, "MemAvailable");
    tree_put("cgroup/memory/memory.limit_in_bytes", "314572800\n");
    tree_put("cgroup/memory/memory.usage_in_bytes", "104857600\n");
    expect_left(200, "memory.limit_in_bytes of control group /");
    tree_put("cgroup/memory/memory.usage_in_bytes", "999999999\n");
    expect_left(0, "memory.limit_in_bytes of control group /");
}
