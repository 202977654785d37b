/* cpus.h - which processors this process may compute on, how they stand in cores, and how nodes share them.
 *
 * `root` stands before every path of /sys and /proc: "" outside of tests. */
#ifndef BASE_CPUS_H
#define BASE_CPUS_H
#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

#define CPUS_MAX 1024 /* = CPU_SETSIZE */

struct cpu_list {
    uint32_t n;
    uint16_t ids[CPUS_MAX];
};

/* A list like "0-3,6", as the kernel and the option `cpus` write it; in its order.  ERR_PARSE: anything else, a number
 * that occurs twice, or none. */
enum status cpu_list_parse(struct cpu_list *out, const char *text) MUST_CHECK;
bool cpu_list_has(const struct cpu_list *list, uint32_t id);
/* Processors that the calling thread may run on: cpusets and affinity. */
void cpu_list_allowed(struct cpu_list *out);
/* Keeps the calling thread, and those it starts from now on, on `list`. */
enum status cpu_list_confine(const struct cpu_list *list) MUST_CHECK;

/* Orders `list` so that hardware threads of one core stand together, and cores of one package.  core_of[i] is the
 * number of the core of ids[i], from 0 without gaps; returns how many cores there are.  Where /sys tells no siblings
 * (as in many virtual machines), every processor is a core. */
uint32_t cpus_order_by_core(const char *root, struct cpu_list *list, uint16_t core_of[CPUS_MAX]);
/* Processors' worth of time that the control groups above this process allow (v2 and v1); 0: no limit. */
double cpus_quota(const char *root);
/* How many threads can run at once on `list`: its processors, bounded by the quota. */
uint32_t cpus_usable(const char *root, const struct cpu_list *list);
/* How many compute threads suit `list`: one for each core, bounded by the quota, at least 1.  A quota is rounded down:
 * members of a team wait for each other, so the one that is throttled holds up all. */
uint32_t cpus_default_threads(const char *root, const struct cpu_list *list);

/* Cuts `list` (in the order of cpus_order_by_core()) between cores into n disjoint parts, in proportion to the weights.
 * False if a part would get fewer processors than its weight says it has threads. */
bool cpus_share(const struct cpu_list *list, const uint16_t core_of[CPUS_MAX], const uint32_t *weights, uint32_t n,
                struct cpu_list *parts);
#endif
