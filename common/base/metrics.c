/* metrics.c - registry of metric families and the text that scrapers read. */
#include "base/metrics.h"

#include "base/json_write.h"
#include "base/mem.h"
#include "base/utf8.h"

#include <assert.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <xxhash.h>

#define MAX_SERIES      4096
#define TABLE_SLOTS     16384 /* open addressing; a power of two, always at most half full */
#define OVERFLOW_LABELS "overflow=\"true\""

struct family {
    char *name;
    char *help;
    enum metric_kind kind;
    const double *bounds;
    uint32_t n_bounds;
    struct metric *first, *last; /* series in order of registration */
};

/* Values are doubles kept as their bits, changed by compare and swap.  All accesses are relaxed: a
 * scrape needs each number, not an order between them. */
struct metric {
    struct family *family;
    char *labels;
    struct metric *next;
    _Atomic uint64_t value;    /* histogram: the sum */
    _Atomic uint64_t *buckets; /* n_bounds + 1 counts, not cumulated */
};

struct metrics {
    pthread_mutex_t lock;
    struct family **families; /* sorted by name */
    uint32_t n_families, cap_families;
    struct metric **slots;
    uint32_t n_series;
};

const double METRICS_TTFT_BOUNDS[] = { .001, .005, .01, .02, .04, .06, .08, .1, .25, .5,  .75,
                                       1,    2.5,  5,   7.5, 10,  20,  40,  80, 160, 640, 2560 };
const uint32_t METRICS_N_TTFT_BOUNDS = sizeof(METRICS_TTFT_BOUNDS) / sizeof(double);
const double METRICS_ITL_BOUNDS[] = { .001, .0025, .005, .01, .025, .05, .075, .1, .15, .2, .3,
                                      .4,   .5,    .75,  1,   2.5,  5,   7.5,  10, 20,  40, 80 };
const uint32_t METRICS_N_ITL_BOUNDS = sizeof(METRICS_ITL_BOUNDS) / sizeof(double);
const double METRICS_REQUEST_BOUNDS[] = { .3, .5, .8, 1,  1.5, 2,   2.5, 5,   10,   15,  20,
                                          30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680 };
const uint32_t METRICS_N_REQUEST_BOUNDS = sizeof(METRICS_REQUEST_BOUNDS) / sizeof(double);

static uint64_t bits_of(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof(bits));
    return bits;
}

static double double_of(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof(v));
    return v;
}

struct metrics *metrics_create(void)
{
    struct metrics *m = mem_zalloc(sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
    m->slots = mem_array(TABLE_SLOTS, sizeof(*m->slots));
    return m;
}

static void family_destroy(struct family *f)
{
    while (f->first) {
        struct metric *s = f->first;
        f->first = s->next;
        mem_free(s->labels);
        mem_free((void *)s->buckets);
        mem_free(s);
    }
    mem_free(f->name);
    mem_free(f->help);
    mem_free(f);
}

void metrics_destroy(struct metrics *m)
{
    if (!m) return;
    for (uint32_t i = 0; i < m->n_families; i++) family_destroy(m->families[i]);
    mem_free(m->families);
    mem_free(m->slots);
    pthread_mutex_destroy(&m->lock);
    mem_free(m);
}

/* The family `name`, or the place where it belongs in *at. */
static struct family *family_find(const struct metrics *m, const char *name, uint32_t *at)
{
    uint32_t lo = 0, hi = m->n_families;
    while (lo < hi) {
        uint32_t mid = lo + (hi - lo) / 2;
        int order = strcmp(m->families[mid]->name, name);
        if (order == 0) return m->families[mid];
        if (order < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    *at = lo;
    return NULL;
}

static struct family *family_add(struct metrics *m, uint32_t at, const char *name)
{
    if (m->n_families == m->cap_families) {
        m->cap_families = m->cap_families ? 2 * m->cap_families : 32;
        m->families = mem_resize(m->families, m->cap_families, sizeof(*m->families));
    }
    memmove(m->families + at + 1, m->families + at, (m->n_families - at) * sizeof(*m->families));
    struct family *f = mem_zalloc(sizeof(*f));
    f->name = mem_strdup(name);
    m->families[at] = f;
    m->n_families++;
    return f;
}

/* The slot that holds (name, labels), or the free one where it belongs. */
static struct metric **slot_of(struct metrics *m, const char *name, const char *labels)
{
    uint64_t seed = XXH3_64bits(name, strlen(name));
    uint64_t at = XXH3_64bits_withSeed(labels, strlen(labels), seed);
    for (;; at++) {
        struct metric **slot = &m->slots[at % TABLE_SLOTS];
        if (!*slot) return slot;
        if (strcmp((*slot)->labels, labels) == 0 && strcmp((*slot)->family->name, name) == 0) return slot;
    }
}

static struct metric *series_add(struct metrics *m, struct metric **slot, struct family *f, const char *labels)
{
    struct metric *s = mem_zalloc(sizeof(*s));
    s->family = f;
    s->labels = mem_strdup(labels);
    if (f->kind == METRIC_HISTOGRAM) s->buckets = mem_array((size_t)f->n_bounds + 1, sizeof(*s->buckets));
    if (f->last) {
        f->last->next = s;
    } else {
        f->first = s;
    }
    f->last = s;
    *slot = s;
    m->n_series++;
    return s;
}

static struct metric *get_locked(struct metrics *m, enum metric_kind kind, const char *name, const char *help,
                                 const char *labels, const double *bounds, uint32_t n_bounds)
{
    uint32_t at;
    struct metric **slot = slot_of(m, name, labels);
    if (*slot) {
        assert((*slot)->family->kind == kind);
        return *slot;
    }
    struct family *f = family_find(m, name, &at);
    if (!f) {
        f = family_add(m, at, name);
        f->help = mem_strdup(help ? help : "");
        f->kind = kind;
        f->bounds = bounds;
        f->n_bounds = n_bounds;
    }
    assert(f->kind == kind);
    if (m->n_series >= MAX_SERIES) {
        labels = OVERFLOW_LABELS;
        slot = slot_of(m, name, labels);
        if (*slot) return *slot;
    }
    /* Families are few and named in the code, so their overflow series cannot fill the table. */
    assert(m->n_series < TABLE_SLOTS / 2);
    return series_add(m, slot, f, labels);
}

struct metric *metrics_get(struct metrics *m, enum metric_kind kind, const char *name, const char *help,
                           const char *labels, const double *bounds, uint32_t n_bounds)
{
    pthread_mutex_lock(&m->lock);
    struct metric *s = get_locked(m, kind, name, help, labels ? labels : "", bounds, n_bounds);
    pthread_mutex_unlock(&m->lock);
    return s;
}

static void add_double(_Atomic uint64_t *cell, double v)
{
    uint64_t old = atomic_load_explicit(cell, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(cell, &old, bits_of(double_of(old) + v), memory_order_relaxed,
                                                  memory_order_relaxed)) {}
}

void metric_add(struct metric *s, double v)
{
    assert(s->family->kind != METRIC_HISTOGRAM);
    assert(s->family->kind == METRIC_GAUGE || v >= 0);
    add_double(&s->value, v);
}

void metric_set(struct metric *s, double v)
{
    assert(s->family->kind == METRIC_GAUGE);
    atomic_store_explicit(&s->value, bits_of(v), memory_order_relaxed);
}

void metric_observe(struct metric *s, double v)
{
    const struct family *f = s->family;
    assert(f->kind == METRIC_HISTOGRAM);
    uint32_t i = 0;
    while (i < f->n_bounds && !(v <= f->bounds[i])) i++;
    atomic_fetch_add_explicit(&s->buckets[i], 1, memory_order_relaxed);
    add_double(&s->value, v);
}

double metric_value(const struct metric *s)
{
    if (s->family->kind != METRIC_HISTOGRAM) {
        return double_of(atomic_load_explicit(&s->value, memory_order_relaxed));
    }
    uint64_t count = 0;
    for (uint32_t i = 0; i <= s->family->n_bounds; i++) {
        count += atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
    }
    return (double)count;
}

double metric_sum(const struct metric *s)
{
    return double_of(atomic_load_explicit(&s->value, memory_order_relaxed));
}

static void add_number(struct strbuf *out, double v)
{
    if (isfinite(v)) {
        json_num(out, v);
    } else {
        strbuf_puts(out, isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
    }
}

static void add_sample(struct strbuf *out, const struct metric *s, const char *suffix, const double *le, double v)
{
    bool labelled = s->labels[0] != '\0';
    strbuf_addf(out, "%s%s", s->family->name, suffix);
    if (labelled || le) strbuf_addf(out, "{%s%s", s->labels, labelled && le ? "," : "");
    if (le) {
        strbuf_puts(out, "le=\"");
        add_number(out, *le);
        strbuf_putc(out, '"');
    }
    strbuf_puts(out, labelled || le ? "} " : " ");
    add_number(out, v);
    strbuf_putc(out, '\n');
}

static void render_histogram(const struct metric *s, struct strbuf *out)
{
    const struct family *f = s->family;
    double inf = INFINITY, count = 0;
    for (uint32_t i = 0; i <= f->n_bounds; i++) {
        count += (double)atomic_load_explicit(&s->buckets[i], memory_order_relaxed);
        add_sample(out, s, "_bucket", i < f->n_bounds ? &f->bounds[i] : &inf, count);
    }
    add_sample(out, s, "_sum", NULL, metric_sum(s));
    add_sample(out, s, "_count", NULL, count); /* the same reading as the last bucket */
}

static void render_family(const struct family *f, struct strbuf *out)
{
    static const char *const kinds[] = { "counter", "gauge", "histogram" };
    strbuf_addf(out, "# HELP %s ", f->name);
    for (const char *p = f->help; *p; p++) {
        if (*p == '\\' || *p == '\n') {
            strbuf_puts(out, *p == '\n' ? "\\n" : "\\\\");
        } else {
            strbuf_putc(out, *p);
        }
    }
    strbuf_addf(out, "\n# TYPE %s %s\n", f->name, kinds[f->kind]);
    for (const struct metric *s = f->first; s; s = s->next) {
        if (f->kind == METRIC_HISTOGRAM) {
            render_histogram(s, out);
        } else {
            add_sample(out, s, "", NULL, metric_value(s));
        }
    }
}

void metrics_render(struct metrics *m, struct strbuf *out)
{
    pthread_mutex_lock(&m->lock);
    for (uint32_t i = 0; i < m->n_families; i++) render_family(m->families[i], out);
    pthread_mutex_unlock(&m->lock);
}

const char *metrics_label(char *buf, size_t cap, const char *value)
{
    size_t n = 0;
    assert(cap > 0);
    for (size_t left = strlen(value), len; left > 0; value += len, left -= len) {
        bool escaped = *value == '\\' || *value == '"' || *value == '\n';
        size_t seq = utf8_seq_len(value, left);
        len = seq ? seq : 1;
        if (n + len + 2 > cap) break;
        if (escaped) buf[n++] = '\\';
        memcpy(buf + n, seq == 0 ? "?" : *value == '\n' ? "n" : value, len);
        n += len;
    }
    buf[n] = '\0';
    return buf;
}
