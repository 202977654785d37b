/* host_memory: the tightest limit counts, and what does not fit is refused with its name. */
#include "base/host_memory.h"

#include "helpers/file_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define MIB (1ull << 20)

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

Test(host_memory, refuses_what_does_not_fit_with_all_numbers)
{
    const struct host_memory left = { 100 * MIB, "MemAvailable" };
    struct error err = { 0 };
    cr_assert_eq(host_memory_fit(&left, "swap", 40 * MIB, "pool", 60 * MIB, &err), OK);
    cr_assert_eq(host_memory_fit(&left, "swap", 40 * MIB + 1, "pool", 60 * MIB, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "swap: 40.0 MiB of memory are needed beside 60.0 MiB (pool), 100.0 MiB are available"),
              "%s", err.text);
    cr_assert_eq(host_memory_fit(&left, "swap", UINT64_MAX, NULL, 1, &err), ERR_NO_MEMORY);
    cr_assert_eq(host_memory_fit(&left, "swap", 0, NULL, 101 * MIB, &err), ERR_NO_MEMORY);
    cr_assert_eq(host_memory_check(UINT64_MAX / 2, "a pool", &err), ERR_NO_MEMORY);
    cr_assert_eq(host_memory_check(4096, "a page", &err), OK);
}

Test(host_memory, lines_of_other_shapes_bound_nothing, .init = tree_make, .fini = tree_remove)
{
    tree_put("proc/meminfo", "MemTotal:  9999999 kB\nMemAvailable:    2097152 kB\n");
    tree_put("cgroup/memory.max", "1048576\n");
    static const char *const groups[] = { "", "0\n", "0:\n", "0:x\n", "0:x:/\n", "3:memory2:/\n", "3:cpu,memory:/\n" };
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        tree_put("proc/self/cgroup", groups[i]);
        expect_left(2048, "MemAvailable");
    }
    tree_put("proc/self/cgroup", "0::/\n");
    expect_left(2048, "MemAvailable"); /* what it uses is not told */
    tree_put("cgroup/memory.current", "0\n");
    expect_left(1, "memory.max of control group /");
    tree_put("cgroup/memory.max", "max\n");
    expect_left(2048, "MemAvailable");
    tree_put("cgroup/memory.max", "4611686018427387903\n"); /* version 1 writes its largest number for "none" */
    expect_left(2048, "MemAvailable");
    tree_put("cgroup/memory.max", "1048577\n");
    tree_put("cgroup/memory.current", "1048577\n");
    expect_left(0, "memory.max of control group /");
    tree_put("cgroup/memory.stat", "inactive_file 9999999999\n"); /* more than it uses */
    tree_put("cgroup/memory.max", "1048576\n");
    expect_left(1, "memory.max of control group /");
}

#ifndef __SANITIZE_ADDRESS__ /* whose address space has no bound that a limit could be below */
Test(host_memory, a_limit_of_the_process_bounds_it, .init = tree_make, .fini = tree_remove)
{
    struct host_memory m;
    struct rlimit lim;
    unsigned long long kib = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    while (kib == 0 && fgets(line, sizeof(line), f)) sscanf(line, "VmSize: %llu", &kib);
    fclose(f);
    cr_assert_eq(getrlimit(RLIMIT_AS, &lim), 0);
    lim.rlim_cur = kib * 1024 + 100 * MIB;
    cr_assert_eq(setrlimit(RLIMIT_AS, &lim), 0);
    host_memory_read(&m, tree_root, tree_root);
    cr_assert_str_eq(m.from, "RLIMIT_AS");
    cr_assert(m.bytes <= 110 * MIB && m.bytes >= 80 * MIB, "%llu", (unsigned long long)m.bytes);
    cr_assert_leq(host_memory_available(), 110 * MIB);
}
#endif

Test(host_memory, no_limit_is_no_limit, .init = tree_make, .fini = tree_remove)
{
    struct host_memory m;
    struct rlimit lim;
    cr_assert_eq(getrlimit(RLIMIT_AS, &lim), 0);
    if (lim.rlim_cur != RLIM_INFINITY) cr_skip_test("this process has a limit of its own");
    host_memory_read(&m, tree_root, tree_root);
    cr_assert_eq(m.bytes, UINT64_MAX);
    cr_assert_str_eq(m.from, "no limit");
}
