/* metrics: the text format, histograms, the bound on series, threads. */
#include "base/metrics.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const double bounds[] = { 0.5, 1, 2.5 };

static struct metric *counter(struct metrics *m, const char *name, const char *labels)
{
    return metrics_get(m, METRIC_COUNTER, name, "A \\ count\nof x", labels, NULL, 0);
}

Test(metrics, renders_the_text_format)
{
    struct metrics *m = metrics_create();
    struct strbuf sb = STRBUF_INIT;
    struct metric *h = metrics_get(m, METRIC_HISTOGRAM, "b_seconds", "Time.", "k=\"v\"", bounds, 3);
    metric_observe(h, 0.5);
    metric_observe(h, 2);
    metric_observe(h, 99);
    metric_add(counter(m, "c_total", "s=\"1\""), 2);
    metric_add(counter(m, "c_total", "s=\"0\""), 0.5);
    metric_set(metrics_get(m, METRIC_GAUGE, "a_gauge", "G.", "", NULL, 0), -INFINITY);
    metrics_render(m, &sb);
    cr_assert_str_eq(sb.s, "# HELP a_gauge G.\n# TYPE a_gauge gauge\na_gauge -Inf\n"
                           "# HELP b_seconds Time.\n# TYPE b_seconds histogram\n"
                           "b_seconds_bucket{k=\"v\",le=\"0.5\"} 1\nb_seconds_bucket{k=\"v\",le=\"1\"} 1\n"
                           "b_seconds_bucket{k=\"v\",le=\"2.5\"} 2\nb_seconds_bucket{k=\"v\",le=\"+Inf\"} 3\n"
                           "b_seconds_sum{k=\"v\"} 101.5\nb_seconds_count{k=\"v\"} 3\n"
                           "# HELP c_total A \\\\ count\\nof x\n# TYPE c_total counter\n"
                           "c_total{s=\"1\"} 2\nc_total{s=\"0\"} 0.5\n");
    cr_assert_eq(metric_value(h), 3);
    cr_assert_eq(metric_sum(h), 101.5);
    strbuf_fini(&sb);
    metrics_destroy(m);
    metrics_destroy(NULL);
}

Test(metrics, a_series_is_found_again)
{
    struct metrics *m = metrics_create();
    struct metric *a = counter(m, "x_total", "");
    cr_assert_eq(counter(m, "x_total", NULL), a);
    cr_assert_neq(counter(m, "x_total", "k=\"1\""), a);
    cr_assert_neq(counter(m, "y_total", ""), a);
    metric_add(a, 3);
    cr_assert_eq(metric_value(counter(m, "x_total", "")), 3);
    metrics_destroy(m);
}

Test(metrics, series_are_bounded)
{
    struct metrics *m = metrics_create();
    struct strbuf sb = STRBUF_INIT;
    char labels[40];
    for (int i = 0; i < 10000; i++) {
        snprintf(labels, sizeof(labels), "user=\"%d\"", i);
        metric_add(counter(m, "x_total", labels), 1);
    }
    cr_assert_eq(metric_value(counter(m, "x_total", "overflow=\"true\"")), 10000 - 4096);
    cr_assert_eq(metric_value(counter(m, "x_total", "user=\"4095\"")), 1);
    metric_add(counter(m, "late_total", ""), 1);
    metrics_render(m, &sb);
    cr_assert(strstr(sb.s, "late_total{overflow=\"true\"} 1\n"));
    strbuf_fini(&sb);
    metrics_destroy(m);
}

Test(metrics, a_name_keeps_its_kind, .signal = SIGABRT)
{
    struct metrics *m = metrics_create();
    counter(m, "x", "");
    metrics_get(m, METRIC_GAUGE, "x", "", "k=\"1\"", NULL, 0);
}

static void *add_many(void *arg)
{
    struct metrics *m = arg;
    for (int i = 0; i < 5000; i++) {
        metric_add(counter(m, "x_total", i % 2 ? "k=\"1\"" : "k=\"0\""), 1);
        metric_observe(metrics_get(m, METRIC_HISTOGRAM, "h", "", "", bounds, 3), 1);
    }
    return NULL;
}

Test(metrics, nothing_is_lost_between_threads)
{
    struct metrics *m = metrics_create();
    pthread_t t[4];
    for (int i = 0; i < 4; i++) pthread_create(&t[i], NULL, add_many, m);
    for (int i = 0; i < 4; i++) pthread_join(t[i], NULL);
    cr_assert_eq(metric_value(counter(m, "x_total", "k=\"1\"")), 10000);
    cr_assert_eq(metric_value(counter(m, "x_total", "k=\"0\"")), 10000);
    cr_assert_eq(metric_sum(metrics_get(m, METRIC_HISTOGRAM, "h", "", "", bounds, 3)), 20000);
    metrics_destroy(m);
}

Test(metrics, label_values_are_escaped_and_cut)
{
    char buf[32], small[6];
    cr_assert_str_eq(metrics_label(buf, sizeof(buf), "a\"b\\c\nd\xff"), "a\\\"b\\\\c\\nd?");
    cr_assert_str_eq(metrics_label(small, sizeof(small), "abc\xE2\x82\xAC"), "abc");
    cr_assert_str_eq(metrics_label(small, sizeof(small), "abcdefghi"), "abcd");
}

Test(metrics, the_process_shows_itself)
{
    struct strbuf sb = STRBUF_INIT;
    double rss = 0;
    metrics_add_process(&sb);
    const char *line = strstr(sb.s, "\nprocess_resident_memory_bytes ");
    cr_assert(line && sscanf(line, " process_resident_memory_bytes %lf", &rss) == 1);
    cr_assert(rss > 1e5);
    cr_assert(strstr(sb.s, "# TYPE process_cpu_seconds_total counter\n"));
    cr_assert(strstr(sb.s, "\nprocess_open_fds ") && strstr(sb.s, "\nprocess_start_time_seconds 1"));
    strbuf_fini(&sb);
}
