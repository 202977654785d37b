/* host_memory: the tightest limit counts, and what does not fit is refused with its name. */
#include "base/host_memory.h"

#include "helpers/file_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

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
