/* kernels.h - what the files of `baton-bench kernels` share: shapes, the level under test, what is timed. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H
#include "base/strbuf.h"
#include "bench/ceilings.h"
#include "compute/backend.h"

#define COLS        2048u
#define ROWS        8192u
#define MANY        512u                /* activation rows of a prefill chunk */
#define FEW         8u                  /* in its place where a kernel would take seconds */
#define CACHE_BYTES ((size_t)128 << 20) /* weights and KV are used in turns from this much memory */
#define SAMPLES     5

/* One layer's attention of an 8B llama. */
#define HEADS     32u
#define KV_HEADS  8u
#define HEAD_DIM  128u
#define CONTEXT   4096u
#define PICK_ROWS 32u
#define VOCAB     151936u
#define WIDTH     (HEADS * HEAD_DIM)
#define LD        (WIDTH + 2 * KV_HEADS * HEAD_DIM)

/* One layer's experts of Qwen3-30B-A3B. */
#define EXPERTS   128u
#define USED      8u
#define EXPERT_D  2048u
#define EXPERT_FF 768u

/* One layer's attention of DeepSeek-V2-Lite. */
#define LATENT       512u
#define LATENT_HEADS 16u
#define LATENT_ROPE  64u

struct options {
    char *backend, *numerics;
    char *op, *type, *isa, *shape; /* NULL: all */
    uint32_t threads, rows;        /* rows: 0: several */
    bool json;
};

struct kernels {
    struct options opt;
    bool has_packed;
    struct backend *backend; /* of the level under test */
    struct ceilings *ceilings;
    double read_bytes_s, int8_ops_s;
    const char *int8_how;
    float *x; /* [MANY][LD] random activations */
    float *y; /* [MANY][ROWS] */
    struct strbuf json;
    uint32_t n_json;
};

/* What is timed: `run` uses copy number `turn`. */
struct job {
    struct kernels *k;
    enum status (*run)(struct job *j, uint32_t turn);
    uint32_t n; /* activation rows */
    uint8_t *copies;
    size_t copy_bytes;
    uint32_t n_copies;
    struct act act;
    enum dtype type;         /* matmul and pack */
    uint8_t *gguf;           /* pack: rows of the file */
    struct kv_geometry geom; /* attention */
    uint32_t *blocks;
    struct weight gate, up, down; /* experts */
    struct route route;
    struct act hidden;
    float *wide, *out;     /* [MANY * USED][2 EXPERT_FF], [MANY * USED][EXPERT_D] */
    struct pick_row *asks; /* pick: [PICK_ROWS] */
    struct picked *picked;
};

/* `n` rows, or FEW where they would take more than a second, to judge by FEW of them: j->n says which. */
enum status kernels_time_rows(struct job *j, uint32_t n, double *seconds);
void kernels_report(struct kernels *k, const char *op, const char *type, uint32_t n, double ops_s, double bytes_s);
/* Beside each type anew: what else the machine does changes under way. */
void kernels_measure_ceilings(struct kernels *k);
/* Room for copies that together do not fit a cache; the first is for the caller to fill before kernels_copy_out(). */
enum status kernels_make_copies(struct job *j, size_t bytes);
void kernels_copy_out(struct job *j);

/* ERR_INVALID if --type names none. */
enum status kernels_check_type(const struct kernels *k, struct error *err);

/* Recurrent layers, and attention over latents. */
enum status bench_states(struct kernels *k);
enum status bench_latent(struct kernels *k);
/* Products on a backend with memory of its own (bench_kernels_device.c). */
enum status bench_device(struct kernels *k, struct error *err);
/* Its other ops (bench_kernels_ops.c). */
enum status bench_device_ops(struct kernels *k, struct error *err);
/* Attention over K and V there (bench_kernels_attention.c). */
enum status bench_device_attention(struct kernels *k, struct error *err);
#endif
