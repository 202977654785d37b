/* gauges.h - what the process is like at the moment of asking, beside the counters of meters.h. */
#ifndef COORDINATOR_GAUGES_H
#define COORDINATOR_GAUGES_H
#include "base/strbuf.h"

#include <stdint.h>

struct meters;
struct registry;

/* Sets the gauges of requests ([REQUEST_STATE_COUNT]), of bodies at the workers and nodes as of `now`, and writes all
 * in Prometheus' format. */
void gauges_render(struct meters *m, const uint32_t *state_counts, uint32_t n_bodies, const struct registry *nodes,
                   uint64_t now, struct strbuf *out);
#endif
