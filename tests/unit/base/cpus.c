/* cpus: lists, cores and limits are read from /sys and /proc as the kernel writes them. */
#include "base/cpus.h"

#include "helpers/file_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

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

Test(cpus, a_thread_stays_where_it_is_confined)
{
    struct cpu_list before, after, one = { .n = 1 };
    cpu_list_allowed(&before);
    one.ids[0] = before.ids[before.n - 1];
    cr_assert_eq(cpu_list_confine(&one), OK);
    cpu_list_allowed(&after);
    cr_assert(after.n == 1 && after.ids[0] == one.ids[0]);
    cr_assert_eq(cpu_list_confine(&before), OK);
    cpu_list_allowed(&after);
    cr_assert_eq(after.n, before.n);
    cr_assert_arr_eq(after.ids, before.ids, before.n * sizeof(*before.ids));
    cr_assert_eq(cpu_list_confine(&(struct cpu_list){ 0 }), ERR_INVALID, "nowhere");
}

Test(cpus, a_list_is_searched_to_its_end)
{
    const struct cpu_list l = list_of("3,5");
    cr_assert(cpu_list_has(&l, 3) && cpu_list_has(&l, 5));
    cr_assert_not(cpu_list_has(&l, 0), "behind its end");
    cr_assert_not(cpu_list_has(&l, 4));
    const struct cpu_list all = list_of("0-1023");
    cr_assert(all.n == 1024 && all.ids[1023] == 1023);
}

Test(cpus, quotas_of_odd_files, .init = tree_make, .fini = tree_remove)
{
    static const struct {
        const char *max;
        double quota;
    } v2[] = {
        { "100000 100000\n", 1.0 }, { "100001 100000", 1.00001 }, { "1 1\n", 1.0 },       { "250000\n", 0.0 },
        { "0 100000\n", 0.0 },      { "100000 0\n", 0.0 },        { "-1 100000\n", 0.0 }, { "\n", 0.0 },
    };
    tree_put("proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < sizeof(v2) / sizeof(v2[0]); i++) {
        tree_put("sys/fs/cgroup/cpu.max", v2[i].max);
        cr_assert_float_eq(cpus_quota(tree_root), v2[i].quota, 1e-9, "%s", v2[i].max);
    }
    tree_put("sys/fs/cgroup/unified/cpu.max", "200000 100000\n");
    cr_assert_float_eq(cpus_quota(tree_root), 2.0, 1e-9, "both kinds at once");
    tree_put("sys/fs/cgroup/cpu.max", "150000 100000\n");
    cr_assert_float_eq(cpus_quota(tree_root), 1.5, 1e-9, "the tightest one, wherever it stands");

    static const struct {
        const char *group;
        double quota;
    } v1[] = {
        { "4:cpu:/a\n", 3.0 },
        { "4:cpuset,cpu:/a\n", 3.0 },
        { "4:cpu,x:/a\n", 3.0 },
        { "4:cpuset:/a\n", 0.0 },
        { "4:cpuacct,cpuset:/a\n", 0.0 },
        { "4:xpu:/a\n", 0.0 },
        { "4:cpu\n", 0.0 },
        { "no colon\n", 0.0 },
        { "\n4:cpu:/a\n", 3.0 },
        { "4:cpu:/a", 3.0 },
        { "4:cpu:/other\n", 5.0 },
    };
    tree_put("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "500000\n");
    tree_put("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    tree_put("sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "300000\n");
    cr_assert_eq(cpus_quota(tree_root), 1.5);
    tree_put("proc/self/cgroup", "4:cpu:/a\n");
    cr_assert_float_eq(cpus_quota(tree_root), 5.0, 1e-9, "a group without a period has no limit of its own");
    tree_put("sys/fs/cgroup/cpu/a/cpu.cfs_period_us", "100000\n");
    for (size_t i = 0; i < sizeof(v1) / sizeof(v1[0]); i++) {
        tree_put("proc/self/cgroup", v1[i].group);
        cr_assert_float_eq(cpus_quota(tree_root), v1[i].quota, 1e-9, "%s", v1[i].group);
    }
}

Test(cpus, threads_are_as_many_as_a_quota_allows, .init = tree_make, .fini = tree_remove)
{
    static const struct {
        const char *max;
        uint32_t threads;
    } rows[] = { { "400000 100000\n", 4 }, { "399999 100000\n", 3 }, { "500000 100000\n", 4 }, { "1000 100000\n", 1 } };
    const struct cpu_list l = list_of("0-3");
    tree_put("proc/self/cgroup", "0::/\n");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        tree_put("sys/fs/cgroup/cpu.max", rows[i].max);
        cr_assert_eq(cpus_usable(tree_root, &l), rows[i].threads, "%s", rows[i].max);
    }
    cr_assert_eq(cpus_usable(tree_root, &(struct cpu_list){ 0 }), 1);
}

Test(cpus, a_core_is_of_one_package, .init = tree_make, .fini = tree_remove)
{
    uint16_t core_of[CPUS_MAX];
    put_cpu(0, "0-1\n", "1\n"); /* nonsense: siblings in two packages */
    put_cpu(1, "0-1\n", "0\n");
    put_cpu(2, "2-3\n", "x\n"); /* no package that is a number: the first */
    put_cpu(3, "2-3\n", ":\n");
    struct cpu_list l = list_of("0-3");
    cr_assert_eq(cpus_order_by_core(tree_root, &l, core_of), 3);
    expect_list(&l, "1-3,0");
    cr_assert(core_of[0] == 0 && core_of[1] == 1 && core_of[2] == 1 && core_of[3] == 2);
}

Test(cpus, a_path_that_is_too_long_has_no_quota_of_its_own, .init = tree_make, .fini = tree_remove)
{
    char line[4200] = "0::/";
    memset(line + 4, 'a', sizeof(line) - 6);
    line[sizeof(line) - 2] = '\n';
    tree_put("proc/self/cgroup", line);
    tree_put("sys/fs/cgroup/cpu.max", "200000 100000\n");
    cr_assert_float_eq(cpus_quota(tree_root), 2.0, 1e-9);
}
