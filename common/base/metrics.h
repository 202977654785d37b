/* metrics.h - counters, gauges and histograms with Prometheus' text format 0.0.4.
 *
 * A family is registered once, at start, by name; a series is found by its label text, such as
 * `state="free"`, and stays for the process's life.  Updates are atomic, from any thread. */
#ifndef BASE_METRICS_H
#define BASE_METRICS_H
#include "base/strbuf.h"

#include <stdint.h>

struct metrics;
struct metric; /* one series */

enum metric_kind { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

struct metrics *metrics_create(void);
void metrics_destroy(struct metrics *m);
/* The series of family `name` with `labels` (without braces, "" for none), made on first use.  A name keeps
 * the kind, help and bounds of its first registration; another kind is a bug (assert).  At most 4096 series: past
 * that the family's series with label overflow="true" is returned.
 * bounds: ascending upper bounds of a histogram's buckets (+Inf is added), NULL otherwise; borrowed for ever. */
struct metric *metrics_get(struct metrics *m, enum metric_kind kind, const char *name, const char *help,
                           const char *labels, const double *bounds, uint32_t n_bounds);
void metric_add(struct metric *s, double v);     /* counter, gauge */
void metric_set(struct metric *s, double v);     /* gauge */
void metric_observe(struct metric *s, double v); /* histogram */
double metric_value(const struct metric *s);     /* counter, gauge: value; histogram: count */
double metric_sum(const struct metric *s);       /* histogram: sum */
/* All series, grouped by family with HELP and TYPE lines, sorted by name. */
void metrics_render(struct metrics *m, struct strbuf *out);
/* Adds process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds, process_start_time_seconds. */
void metrics_add_process(struct strbuf *out);
/* Escapes a label value (\\, ", newline; '?' for invalid UTF-8) into buf, cut to fit; returns buf. */
const char *metrics_label(char *buf, size_t cap, const char *value);

extern const double METRICS_TTFT_BOUNDS[];
extern const uint32_t METRICS_N_TTFT_BOUNDS;
extern const double METRICS_ITL_BOUNDS[];
extern const uint32_t METRICS_N_ITL_BOUNDS;
extern const double METRICS_REQUEST_BOUNDS[];
extern const uint32_t METRICS_N_REQUEST_BOUNDS;
#endif
