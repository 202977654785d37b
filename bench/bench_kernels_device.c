/* bench_kernels_device.c - products on a GPU: types, shapes of an 8B llama and numbers of rows, beside a stream that
 * only reads. */
#include "base/json_write.h"
#include "base/mem.h"
#include "bench/bench.h"
#include "bench/device_time.h"
#include "bench/kernels.h"
#include "bench/synth.h"
#include "compute/cuda/cuda_backend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define DEVICE_CACHE   ((size_t)256 << 20) /* matrices are used in turns from at least this much memory */
#define DEVICE_ROWS    1024u
#define DEVICE_COLS    16384u
#define DRAWN_ROWS     1024u /* random rows that a matrix is made of, again and again */
#define SAMPLE_SECONDS 0.01

/* A build without the GPU's sources has no such function. */
#pragma weak cuda_read_all

static const struct shape {
    uint32_t rows, cols;
} SHAPES[] = { { 4096, 4096 }, { 6144, 4096 }, { 28672, 4096 }, { 4096, 14336 }, { 128256, 4096 } };
static const uint32_t COUNTS[] = { 1, 2, 4, 8, 16, 32, 64, 128, 512 };
#define N_SHAPES (sizeof(SHAPES) / sizeof(SHAPES[0]))
#define N_COUNTS (sizeof(COUNTS) / sizeof(COUNTS[0]))

/* One matrix, many times over, and the rows it is multiplied with. */
struct device {
    struct kernels *k;
    struct backend *b;
    struct weight w; /* the first copy */
    size_t copy_bytes;
    uint32_t n_copies;
    struct act x;
    float *y; /* [DEVICE_ROWS][most rows] */
    void *sink;
};

static enum status device_alloc(struct device *d, size_t bytes, void **out)
{
    return d->b->ops->alloc(d->b, bytes, out);
}

/* --- what is timed --- */
static enum status multiply(void *arg, uint32_t turn)
{
    const struct device *d = arg;
    struct weight w = d->w;
    w.data = (const uint8_t *)w.data + turn % d->n_copies * d->copy_bytes;
    return d->b->ops->matmul(d->b, NULL, d->y, w.n_rows, &w, &d->x, false);
}

static enum status read_copies(void *arg, uint32_t turn)
{
    const struct device *d = arg;
    return cuda_read_all(d->b, d->w.data, d->n_copies * d->copy_bytes, d->sink);
}

/* --- what is multiplied --- */
/* The first copy of a matrix of random rows, and the others from it. */
static enum status make_copies(struct device *d, const struct synth_type *type, const struct shape *shape)
{
    const struct backend_ops *ops = d->b->ops;
    const enum dtype dtype = (enum dtype)synth_type_number(type);
    const size_t row_bytes = dtype_row_bytes(dtype, shape->cols);
    size_t bytes, part;
    void *p = NULL;
    uint64_t seed = 1;
    enum status st = ops->weight_bytes(d->b, dtype, shape->rows, shape->cols, &bytes);
    if (st == OK) st = ops->weight_bytes(d->b, dtype, DRAWN_ROWS, shape->cols, &part);
    if (st != OK) return st;
    d->copy_bytes = (bytes + 255) & ~(size_t)255;
    d->n_copies = (uint32_t)(DEVICE_CACHE / d->copy_bytes) + 1;
    if ((st = device_alloc(d, d->copy_bytes * d->n_copies, &p)) != OK) return st;
    d->w = (struct weight){ .dtype = dtype, .n_rows = shape->rows, .n_cols = shape->cols, .data = p, .bytes = bytes };
    uint8_t *gguf = mem_array(DRAWN_ROWS, row_bytes);
    synth_type_fill(type, &seed, 1.0f / sqrtf((float)shape->cols), gguf, DRAWN_ROWS * row_bytes);
    for (uint32_t r = 0; r < shape->rows && st == OK; r += DRAWN_ROWS) {
        const uint32_t n = shape->rows - r < DRAWN_ROWS ? shape->rows - r : DRAWN_ROWS;
        st = ops->weight_pack(d->b, NULL, (uint8_t *)p + r / DRAWN_ROWS * part, dtype, n, shape->cols, gguf, row_bytes);
    }
    for (uint32_t i = 1; i < d->n_copies && st == OK; i++)
        st = ops->copy(d->b, NULL, (uint8_t *)p + i * d->copy_bytes, p, bytes);
    if (st == OK) st = ops->sync(d->b, NULL);
    mem_free(gguf);
    return st;
}

static void free_copies(struct device *d)
{
    d->b->ops->release(d->b, (void *)(uintptr_t)d->w.data, d->copy_bytes * d->n_copies);
    d->w = (struct weight){ 0 };
}

static void report(struct device *d, double seconds, double read_bytes_s)
{
    struct kernels *k = d->k;
    const struct weight *w = &d->w;
    const char *type = dtype_info(w->dtype)->name;
    const double bytes_s = (double)w->bytes / seconds, ops_s = 2.0 * w->n_rows * w->n_cols * d->x.n / seconds;
    if (!k->opt.json) {
        printf("%-8s %6u x %-5u %5u %10.2f %9.1f %6.1f %% %9.2f\n", type, w->n_rows, w->n_cols, d->x.n, seconds * 1e6,
               bytes_s * 1e-9, 100 * bytes_s / read_bytes_s, ops_s * 1e-12);
        fflush(stdout);
        return;
    }
    strbuf_addf(&k->json, "%s{\"op\":\"matmul\",\"type\":\"%s\",\"out\":%u,\"in\":%u,\"rows\":%u,\"ops_s\":",
                k->n_json++ ? "," : "", type, w->n_rows, w->n_cols, d->x.n);
    json_num(&k->json, ops_s);
    strbuf_puts(&k->json, ",\"bytes_s\":");
    json_num(&k->json, bytes_s);
    strbuf_puts(&k->json, ",\"bytes_share\":");
    json_num(&k->json, bytes_s / read_bytes_s);
    strbuf_putc(&k->json, '}');
}

static enum status bench_shape(struct device *d, const struct synth_type *type, const struct shape *shape)
{
    double read = 0, seconds = 0;
    enum status st = make_copies(d, type, shape);
    if (st == OK) st = device_time(d->b, read_copies, d, SAMPLE_SECONDS, &read);
    const double read_bytes_s = (double)(d->copy_bytes * d->n_copies) / read;
    const uint32_t one = d->k->opt.rows;
    for (size_t i = 0; i < (one ? 1 : N_COUNTS) && st == OK; i++) {
        d->x.n = one ? one : COUNTS[i];
        d->x.k = shape->cols;
        st = d->b->ops->quantize(d->b, NULL, &d->x);
        if (st == OK) st = device_time(d->b, multiply, d, SAMPLE_SECONDS, &seconds);
        if (st == OK) report(d, seconds, read_bytes_s);
    }
    free_copies(d);
    return st == ERR_UNSUPPORTED ? OK : st; /* a type whose blocks do not divide the columns */
}

/* --- the command --- */
static enum status prepare_device(struct device *d)
{
    const size_t x_bytes = (size_t)DEVICE_ROWS * DEVICE_COLS * sizeof(float);
    void *p;
    uint64_t seed = 1;
    enum status st = device_alloc(d, x_bytes, &p);
    if (st != OK) return st;
    d->x.f = p;
    float *host = mem_alloc(x_bytes);
    synth_floats_fill(&seed, -1, 1, host, (size_t)DEVICE_ROWS * DEVICE_COLS);
    st = d->b->ops->upload(d->b, NULL, d->x.f, host, x_bytes);
    mem_free(host);
    if (st == OK) st = device_alloc(d, d->b->ops->act_bytes(d->b, DEVICE_ROWS, DEVICE_COLS, COARSE), &p);
    if (st != OK) return st;
    d->x.q = p;
    if ((st = device_alloc(d, (size_t)DEVICE_ROWS * SHAPES[N_SHAPES - 1].rows * sizeof(float), &p)) != OK) return st;
    d->y = p;
    return device_alloc(d, sizeof(uint32_t), &d->sink);
}

static bool wants_shape(const struct device *d, const struct shape *shape)
{
    char name[32];
    snprintf(name, sizeof(name), "%ux%u", shape->rows, shape->cols);
    return !d->k->opt.shape || strcmp(d->k->opt.shape, name) == 0;
}

static enum status bench_types(struct device *d)
{
    enum status st = OK;
    for (uint32_t type = 0; type < DTYPE_LIMIT && st == OK; type++) {
        const char *name = dtype_info(type)->name;
        const struct synth_type *t = synth_type_find(name);
        if (!t || (d->k->opt.type && strcmp(d->k->opt.type, name) != 0)) continue;
        for (size_t i = 0; i < N_SHAPES && st == OK; i++)
            if (wants_shape(d, &SHAPES[i])) st = bench_shape(d, t, &SHAPES[i]);
    }
    return st;
}

enum status bench_device(struct kernels *k, struct error *err)
{
    struct device d = { .k = k };
    const enum numerics numerics = strcmp(k->opt.numerics, "fast") == 0 ? NUMERICS_FAST : NUMERICS_EXACT;
    const struct backend_options opt = { .numerics = numerics,
                                         .limits = { .max_rows = DEVICE_ROWS, .max_cols = DEVICE_COLS } };
    enum status st = kernels_check_type(k, err);
    if (st == OK) st = backend_open(&d.b, k->opt.backend, &opt, err);
    if (st != OK) return st;
    if (k->opt.json)
        strbuf_addf(&k->json, "{\"device\":\"%s\",\"kernels\":[", backend_describe(d.b));
    else
        printf("%s; GB/s of weights beside a stream that only reads them\n\n%-8s %14s %5s %10s %9s %8s %9s\n",
               backend_describe(d.b), "type", "out x in", "rows", "us", "GB/s", "of read", "Tops/s");
    const bool products = strcmp(k->opt.op, "all") == 0 || strcmp(k->opt.op, "matmul") == 0;
    if (products) st = prepare_device(&d);
    if (st == OK && products) st = bench_types(&d);
    backend_close(d.b); /* the process ends: its memory goes with it */
    const bool attends = strcmp(k->opt.op, "all") == 0 || strcmp(k->opt.op, "attention") == 0;
    if (st == OK && attends && !k->opt.type) st = bench_device_attention(k, err);
    return st == OK && !k->opt.type ? bench_device_ops(k, err) : st;
}
