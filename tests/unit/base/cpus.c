/* cpus: lists, cores and limits are read from /sys and /proc as the kernel writes them. */
#include "base/cpus.h"

#include "helpers/file_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>

static void put_cpu(unsigned id, const char *siblings, const char *package)
{
    char path[128];
    snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", id);
    tree_put(path, siblings);
    snprintf(path, sizeof(path), "sys/devices/system/cpu/cpu%u/topology/physical_package_id", id);
    tree_put(path, package);
}

static struct cpu_list list_of(const char *text)
{
    struct cpu_list l;
    cr_assert_eq(cpu_list_parse(&l, text), OK, "%s", text);
    return l;
}

static void expect_list(const struct cpu_list *l, const char *want)
{
    struct cpu_list w = list_of(want);
    cr_assert_eq(l->n, w.n, "%u of %s", l->n, want);
    for (uint32_t i = 0; i < w.n; i++) cr_assert_eq(l->ids[i], w.ids[i], "%u is %u, not %s", i, l->ids[i], want);
}

Test(cpus, lists_are_read_in_their_order)
{
    static const struct {
        const char *text;
        uint32_t n, ids[8];
    } good[] = {
        { "0", 1, { 0 } },
        { "0-3", 4, { 0, 1, 2, 3 } },
        { "0-3,6", 5, { 0, 1, 2, 3, 6 } },
        { "6,0-3", 5, { 6, 0, 1, 2, 3 } },
        { "1,3,5-7,1023", 6, { 1, 3, 5, 6, 7, 1023 } },
    };
    static const char *const bad[] = { "",   "a",    "0-",  "3-1",    "0,",  ",0",    "0,,1",
                                       "-1", "1024", "0 1", "0-1024", "0,0", "0-3,2", "0\n1" };
    struct cpu_list l = { 0 };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        l = list_of(good[i].text);
        cr_assert_eq(l.n, good[i].n, "%s", good[i].text);
        for (uint32_t k = 0; k < l.n; k++) cr_assert_eq(l.ids[k], good[i].ids[k], "%s", good[i].text);
    }
    l = list_of("0-1\n"); /* as /sys ends it */
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_assert_eq(cpu_list_parse(&l, bad[i]), ERR_PARSE, "%s", bad[i]);
    expect_list(&l, "0-1");
    cpu_list_allowed(&l);
    cr_assert(l.n > 0);
}

Test(cpus, siblings_are_one_core_and_packages_stand_together, .init = tree_make, .fini = tree_remove)
{
    uint16_t core_of[CPUS_MAX];
    put_cpu(0, "0,4\n", "0\n");
    put_cpu(4, "0,4\n", "0\n");
    put_cpu(1, "1,5\n", "1\n");
    put_cpu(5, "1,5\n", "1\n");
    put_cpu(2, "2,6\n", "0\n");
    put_cpu(6, "2,6\n", "0\n");
    put_cpu(3, "3,7\n", "1\n");
    put_cpu(7, "3,7\n", "1\n");
    struct cpu_list l = list_of("0-7");
    cr_assert_eq(cpus_order_by_core(tree_root, &l, core_of), 4);
    expect_list(&l, "0,4,2,6,1,5,3,7");
    for (int i = 0; i < 8; i++) cr_assert_eq(core_of[i], i / 2);
    cr_assert_eq(cpus_default_threads(tree_root, &l), 4, "a thread for each core");
    cr_assert_eq(cpus_usable(tree_root, &l), 8);
    l = list_of("4-7"); /* an affinity that leaves one thread of each core */
    cr_assert_eq(cpus_default_threads(tree_root, &l), 4);
}

Test(cpus, without_siblings_every_processor_is_a_core, .init = tree_make, .fini = tree_remove)
{
    struct cpu_list l = list_of("0-5");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 6, "no /sys at all");
    for (unsigned i = 0; i < 6; i++)
        put_cpu(i, i == 2 ? "garbage\n" : i == 3 ? "0\n" : (char[]){ (char)('0' + i), 0 }, "0\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 6, "a virtual machine that hides them, and nonsense");
}

Test(cpus, quotas_of_control_groups_bound_threads, .init = tree_make, .fini = tree_remove)
{
    struct cpu_list l = list_of("0-15");
    cr_assert_eq(cpus_quota(tree_root), 0.0);
    tree_put("proc/self/cgroup", "0::/a/b/c\n");
    tree_put("sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
    cr_assert_eq(cpus_quota(tree_root), 0.0);
    cr_assert_eq(cpus_default_threads(tree_root, &l), 16);
    tree_put("sys/fs/cgroup/a/b/cpu.max", "650000 100000\n");
    cr_assert_float_eq(cpus_quota(tree_root), 6.5, 1e-9);
    cr_assert_eq(cpus_default_threads(tree_root, &l), 6, "rounded down");
    cr_assert_eq(cpus_usable(tree_root, &l), 6);
    tree_put("sys/fs/cgroup/a/cpu.max", "50000 100000\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 1, "the group above is tighter; half a processor is one thread");
    tree_put("proc/self/cgroup", "0::/a-of-the-host/x\n"); /* a container whose own group is the mount */
    tree_put("sys/fs/cgroup/cpu.max", "300000 100000\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 3);
    tree_put("proc/self/cgroup", "0::/\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 3);
    tree_put("sys/fs/cgroup/cpu.max", "nonsense\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 16);
}

Test(cpus, quotas_of_version_1_are_read_too, .init = tree_make, .fini = tree_remove)
{
    struct cpu_list l = list_of("0-15");
    tree_put("proc/self/cgroup", "11:cpuset:/\n4:cpuacct,cpu:/docker/1\n0::/\n");
    tree_put("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "-1\n");
    tree_put("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 16);
    tree_put("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "400000\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 4);
    tree_put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n");
    tree_put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 2, "by its other name");
    tree_put("proc/self/cgroup", "2:cpuacct:/\n3:cpuset:/\n");
    cr_assert_eq(cpus_default_threads(tree_root, &l), 16, "no group of the cpu controller");
}

Test(cpus, are_shared_in_proportion_and_between_cores)
{
    static const struct {
        uint32_t n_cpus, per_core, n, weights[4];
        const char *parts[4]; /* none: not possible */
    } rows[] = {
        { 8, 1, 2, { 1, 1 }, { "0-3", "4-7" } },
        { 8, 1, 2, { 2, 6 }, { "0-1", "2-7" } },
        { 8, 2, 2, { 2, 2 }, { "0-3", "4-7" } },
        { 8, 2, 3, { 1, 1, 1 }, { "0-1", "2-3", "4-7" } },
        { 2, 1, 2, { 1, 1 }, { "0", "1" } },
        { 2, 1, 3, { 1, 1, 1 }, { NULL } },
        { 4, 1, 2, { 4, 4 }, { NULL } },
        { 2, 2, 2, { 1, 1 }, { NULL } }, /* two threads of one core are not two places */
        { 5, 1, 1, { 3 }, { "0-4" } },
    };
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        struct cpu_list all = { .n = rows[r].n_cpus }, parts[4];
        uint16_t core_of[CPUS_MAX];
        for (uint32_t i = 0; i < all.n; i++) {
            all.ids[i] = (uint16_t)i;
            core_of[i] = (uint16_t)(i / rows[r].per_core);
        }
        bool want = rows[r].parts[0] != NULL;
        cr_assert_eq(cpus_share(&all, core_of, rows[r].weights, rows[r].n, parts), want, "row %zu", r);
        for (uint32_t i = 0; want && i < rows[r].n; i++) expect_list(&parts[i], rows[r].parts[i]);
    }
    struct cpu_list none = { 0 }, part;
    cr_assert_not(cpus_share(&none, (uint16_t[CPUS_MAX]){ 0 }, &(uint32_t){ 1 }, 1, &part));
}
