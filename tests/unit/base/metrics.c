/* metrics: the text format, histograms, the bound on series, threads. */
#include "base/metrics.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

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

/* What scrapers' dashboards are drawn by: a bound that moves breaks them. */
Test(metrics, the_usual_bounds_are_those_of_other_servers)
{
    static const struct {
        const double *bounds;
        const uint32_t *n;
        const char *want;
    } rows[] = {
        { METRICS_TTFT_BOUNDS, &METRICS_N_TTFT_BOUNDS,
          "0.001 0.005 0.01 0.02 0.04 0.06 0.08 0.1 0.25 0.5 0.75 1 2.5 5 7.5 10 20 40 80 160 640 2560 +Inf " },
        { METRICS_ITL_BOUNDS, &METRICS_N_ITL_BOUNDS,
          "0.001 0.0025 0.005 0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.4 0.5 0.75 1 2.5 5 7.5 10 20 40 80 +Inf " },
        { METRICS_REQUEST_BOUNDS, &METRICS_N_REQUEST_BOUNDS,
          "0.3 0.5 0.8 1 1.5 2 2.5 5 10 15 20 30 40 50 60 120 240 480 960 1920 7680 +Inf " },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct metrics *m = metrics_create();
        struct strbuf sb = STRBUF_INIT, les = STRBUF_INIT;
        metrics_get(m, METRIC_HISTOGRAM, "h", "", "", rows[i].bounds, *rows[i].n);
        metrics_render(m, &sb);
        for (const char *p = sb.s; (p = strstr(p, "le=\"")); p++)
            strbuf_addf(&les, "%.*s ", (int)strcspn(p + 4, "\""), p + 4);
        cr_assert_str_eq(les.s, rows[i].want);
        strbuf_fini(&sb);
        strbuf_fini(&les);
        metrics_destroy(m);
    }
}

Test(metrics, many_families_stand_sorted_and_are_found_again)
{
    enum { N = 100 };
    struct metrics *m = metrics_create();
    struct strbuf sb = STRBUF_INIT;
    struct metric *series[N];
    char name[16];
    int before = -1, n = 0;
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "f%02d_total", i * 37 % N);
        series[i] = counter(m, name, "");
    }
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "f%02d_total", i * 37 % N);
        cr_assert_eq(counter(m, name, ""), series[i]);
        cr_assert_neq(counter(m, name, "k=\"1\""), series[i]);
    }
    metrics_render(m, &sb);
    for (const char *p = sb.s; (p = strstr(p, "# TYPE f")); p++, n++) {
        int at = -1;
        cr_assert_eq(sscanf(p, "# TYPE f%d_total counter", &at), 1);
        cr_assert_gt(at, before);
        before = at;
    }
    cr_assert_eq(n, N, "each is shown once");
    strbuf_fini(&sb);
    metrics_destroy(m);
}

Test(metrics, values_that_are_no_numbers_have_names)
{
    struct metrics *m = metrics_create();
    struct strbuf sb = STRBUF_INIT;
    struct metric *g = metrics_get(m, METRIC_GAUGE, "g", NULL, NULL, NULL, 0);
    metric_add(g, -3);
    cr_assert_eq(metric_value(g), -3, "a gauge may fall");
    static const struct {
        double v;
        const char *text;
    } rows[] = { { NAN, "g NaN\n" }, { INFINITY, "g +Inf\n" }, { -INFINITY, "g -Inf\n" }, { 0.25, "g 0.25\n" } };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        metric_set(g, rows[i].v);
        strbuf_reset(&sb);
        metrics_render(m, &sb);
        cr_assert_str_eq(sb.s + strlen(sb.s) - strlen(rows[i].text), rows[i].text);
    }
    struct metric *h = metrics_get(m, METRIC_HISTOGRAM, "h", "", "", bounds, 3);
    metric_observe(h, NAN);
    strbuf_reset(&sb);
    metrics_render(m, &sb);
    cr_assert(strstr(sb.s, "h_bucket{le=\"2.5\"} 0\n") && strstr(sb.s, "h_bucket{le=\"+Inf\"} 1\n"), "%s", sb.s);
    strbuf_fini(&sb);
    metrics_destroy(m);
}

static double process_value(const char *name)
{
    struct strbuf sb = STRBUF_INIT;
    char key[64];
    double v = -1;
    metrics_add_process(&sb);
    snprintf(key, sizeof(key), "\n%s ", name);
    const char *line = strstr(sb.s, key);
    cr_assert(line && sscanf(line + strlen(key), "%lf", &v) == 1, "%s", sb.s);
    strbuf_fini(&sb);
    return v;
}

Test(metrics, the_process_shows_what_it_uses)
{
    const double fds = process_value("process_open_fds");
    const int one = dup(STDERR_FILENO), two = dup(STDERR_FILENO);
    cr_assert_eq(process_value("process_open_fds"), fds + 2);
    int lowest = 0; /* of a process that opens none below its highest: all are counted, and none twice */
    for (int fd = 0; fd <= two; fd++) lowest += fcntl(fd, F_GETFD) >= 0;
    cr_assert_geq(process_value("process_open_fds"), lowest);
    close(one);
    close(two);

    const double resident = process_value("process_resident_memory_bytes");
    const size_t more = (size_t)64 << 20;
    char *p = mem_alloc(more);
    memset(p, 1, more);
    const double now = process_value("process_resident_memory_bytes");
    cr_assert(now > resident + 0.9 * (double)more && now < resident + 2.0 * (double)more, "%.0f, then %.0f", resident,
              now);
    mem_free(p);

    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    cr_assert_float_eq(process_value("process_start_time_seconds"), (double)ts.tv_sec, 600, "it began just now");

    const double cpu = process_value("process_cpu_seconds_total");
    volatile uint64_t x = 0;
    struct timespec used, until;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
    do {
        for (int i = 0; i < 100000; i++) x += (uint64_t)i;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &until);
    } while ((double)(until.tv_sec - used.tv_sec) + 1e-9 * (double)(until.tv_nsec - used.tv_nsec) < 0.2);
    const double spent = process_value("process_cpu_seconds_total") - cpu;
    cr_assert(spent > 0.15 && spent < 5, "%.3f s", spent);
}
