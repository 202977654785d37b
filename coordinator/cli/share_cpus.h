/* share_cpus.h - divides the host's processors and threads among the nodes that start together. */
#ifndef CLI_SHARE_CPUS_H
#define CLI_SHARE_CPUS_H
#include "base/cpus.h"
#include "config/config.h"

/* serve: what the host gives in all (threads of the one entry, 0: its default) becomes each node's half. */
void share_threads_of_host(struct config *cfg);
/* Nodes without threads: and cpus: get equal parts of the threads that the others leave of the host's default. */
void share_threads(struct config *cfg);
/* sets[i] is where node i may run (decode nodes first): disjoint sets in proportion to threads, beside those that other
 * nodes own by cpus:.  Empty: no set of its own, because it owns one already or the processors do not suffice. */
void share_cpus(const struct config *cfg, struct cpu_list sets[2 * CONFIG_MAX_NODES]);
#endif
