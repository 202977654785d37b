/* bench_synth.c - writes a GGUF file of a real model's shape with random weights. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "bench/bench.h"
#include "bench/synth.h"
#include "compute/dtype.h"

#include <assert.h>
#include <errno.h>
#include <libgen.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define ALIGNMENT   32u
#define MAX_TENSORS (9u * 256u + 3u)
#define PIECE_BYTES ((size_t)4 << 20)

static const struct synth_shape SHAPES[] = {
    /* layers, dim, ffn, heads, kv heads, head dim, vocabulary, context, RoPE base, tied */
    { "smollm2-135m", 30, 576, 1536, 9, 3, 64, 49152, 8192, 100000.0f, true },
    { "llama-1b", 16, 2048, 8192, 32, 8, 64, 128256, 131072, 500000.0f, true },
    { "llama-8b", 32, 4096, 14336, 32, 8, 128, 128256, 131072, 500000.0f, false },
    { "llama-70b", 80, 8192, 28672, 64, 8, 128, 128256, 131072, 500000.0f, false },
};
#define N_SHAPES (sizeof(SHAPES) / sizeof(SHAPES[0]))

struct tensor {
    char name[40];
    const struct synth_type *type; /* NULL: a row of ones, F32 */
    uint64_t cols, rows, bytes, offset;
};

struct synth {
    const char *path, *type_name;
    struct synth_shape shape;
    const struct synth_type *type;      /* of all matrices, but for: */
    const struct synth_type *head_type; /* the embedding and the head */
    const struct synth_type *more_type; /* what mixes give attn_v and ffn_down of some layers */
    uint64_t seed;
    struct tensor *tensors;
    uint32_t n_tensors;
    uint64_t data_bytes;
};

struct options {
    char *path, *shape, *type, *head;
    uint32_t layers, vocab, seed; /* layers, vocab 0: the shape's */
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_TEXT("out", "o", AT(path), "FILE", NULL, "GGUF file to write"),
    COMMAND_CHOICE("shape", NULL, AT(shape), "smollm2-135m|llama-1b|llama-8b|llama-70b", NULL, "of this model"),
    COMMAND_TEXT(
        "type", NULL, AT(type), "TYPE", NULL,
        "a type of GGUF for all matrices, or Q4_K_M: Q4_K with Q6_K for the head, half of attn_v and ffn_down"),
    COMMAND_TEXT("head", NULL, AT(head), "TYPE", "", "another type for the embedding and the head"),
    COMMAND_NUMBER("layers", NULL, AT(layers), 1, 256, "", "in place of the shape's"),
    COMMAND_NUMBER("vocab", NULL, AT(vocab), SYNTH_MIN_VOCAB, 1u << 20, "", "in place of the shape's"),
    COMMAND_NUMBER("seed", NULL, AT(seed), 0, UINT32_MAX, "1", "of the weights"),
};
static const struct command COMMAND = { "baton-bench synth", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static void find_shape(struct synth *s, const struct options *o)
{
    for (size_t i = 0; i < N_SHAPES; i++)
        if (strcmp(o->shape, SHAPES[i].name) == 0) s->shape = SHAPES[i];
    assert(s->shape.name && "every choice of --shape has a row");
    if (o->layers) s->shape.n_layers = o->layers;
    if (o->vocab) s->shape.n_vocab = o->vocab;
}

static enum status find_type(const struct synth_type **out, const char *option, const char *name, struct error *err)
{
    struct strbuf known = STRBUF_INIT;
    if ((*out = synth_type_find(name))) return OK;
    synth_type_names(&known);
    enum status st = error_set(err, ERR_INVALID, "%s is \"%.64s\", allowed are %s%s", option, name, strbuf_cstr(&known),
                               strcmp(option, "--type") == 0 ? " Q4_K_M" : "");
    strbuf_fini(&known);
    return st;
}

static enum status find_types(struct synth *s, const char *head, struct error *err)
{
    bool mix = strcmp(s->type_name, "Q4_K_M") == 0;
    enum status st = find_type(&s->type, "--type", mix ? "Q4_K" : s->type_name, err);
    if (st != OK) return st;
    s->more_type = mix ? synth_type_find("Q6_K") : s->type;
    s->head_type = s->more_type;
    return head ? find_type(&s->head_type, "--head", head, err) : OK;
}

/* Which layers a mix gives more bits: the first and last eighth, and each third between. */
static bool has_more_bits(uint32_t layer, uint32_t n_layers)
{
    uint32_t eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

static enum status add_tensor(struct synth *s, const char *name, const struct synth_type *type, uint64_t cols,
                              uint64_t rows, struct error *err)
{
    struct tensor *t = &s->tensors[s->n_tensors++];
    uint32_t number = type ? synth_type_number(type) : DTYPE_F32;
    const struct dtype_info *info = dtype_info(number);
    *t = (struct tensor){ .type = type, .cols = cols, .rows = rows, .offset = s->data_bytes };
    snprintf(t->name, sizeof(t->name), "%s.weight", name);
    if (cols % info->block_elems != 0)
        return error_set(err, ERR_INVALID, "%s has rows of %llu values, %s comes in blocks of %u", t->name,
                         (unsigned long long)cols, info->name, info->block_elems);
    t->bytes = rows * dtype_row_bytes(number, cols);
    s->data_bytes += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return OK;
}

static enum status add_layer(struct synth *s, uint32_t layer, struct error *err)
{
    const struct synth_shape *h = &s->shape;
    const struct synth_type *more = has_more_bits(layer, h->n_layers) ? s->more_type : s->type;
    uint64_t q = (uint64_t)h->n_heads * h->head_dim, kv = (uint64_t)h->n_kv_heads * h->head_dim;
    const struct {
        const char *name;
        const struct synth_type *type;
        uint64_t cols, rows;
    } parts[] = {
        { "attn_norm", NULL, h->d_model, 1 },         { "attn_q", s->type, h->d_model, q },
        { "attn_k", s->type, h->d_model, kv },        { "attn_v", more, h->d_model, kv },
        { "attn_output", s->type, q, h->d_model },    { "ffn_norm", NULL, h->d_model, 1 },
        { "ffn_gate", s->type, h->d_model, h->d_ff }, { "ffn_up", s->type, h->d_model, h->d_ff },
        { "ffn_down", more, h->d_ff, h->d_model },
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char name[32];
        snprintf(name, sizeof(name), "blk.%u.%s", layer, parts[i].name);
        enum status st = add_tensor(s, name, parts[i].type, parts[i].cols, parts[i].rows, err);
        if (st != OK) return st;
    }
    return OK;
}

static enum status plan(struct synth *s, struct error *err)
{
    const struct synth_shape *h = &s->shape;
    enum status st;
    s->tensors = mem_array(MAX_TENSORS, sizeof(*s->tensors));
    if ((st = add_tensor(s, "token_embd", s->head_type, h->d_model, h->n_vocab, err)) != OK) return st;
    for (uint32_t l = 0; l < h->n_layers; l++)
        if ((st = add_layer(s, l, err)) != OK) return st;
    if ((st = add_tensor(s, "output_norm", NULL, h->d_model, 1, err)) != OK) return st;
    return h->tied ? OK : add_tensor(s, "output", s->head_type, h->d_model, h->n_vocab, err);
}

static void build_header(const struct synth *s, struct strbuf *out)
{
    struct strbuf meta = STRBUF_INIT;
    uint32_t n_keys = synth_metadata(&meta, &s->shape, s->type_name);
    const uint64_t counts[2] = { s->n_tensors, n_keys };
    strbuf_add(out, "GGUF\3\0\0\0", 8);
    strbuf_add(out, counts, sizeof(counts));
    strbuf_add(out, meta.s, meta.n);
    strbuf_fini(&meta);
    for (uint32_t i = 0; i < s->n_tensors; i++) {
        const struct tensor *t = &s->tensors[i];
        uint64_t len = strlen(t->name), ne[2] = { t->cols, t->rows };
        uint32_t n_dims = t->type ? 2 : 1, type = t->type ? synth_type_number(t->type) : DTYPE_F32;
        strbuf_add(out, &len, 8);
        strbuf_add(out, t->name, len);
        strbuf_add(out, &n_dims, 4);
        strbuf_add(out, ne, n_dims * sizeof(ne[0]));
        strbuf_add(out, &type, 4);
        strbuf_add(out, &t->offset, 8);
    }
    while (out->n % ALIGNMENT) strbuf_putc(out, 0);
}

static enum status check_disk(const char *path, uint64_t bytes, struct error *err)
{
    struct statvfs fs;
    char *copy = mem_strdup(path);
    int rc = statvfs(dirname(copy), &fs);
    mem_free(copy);
    if (rc != 0) return error_set(err, ERR_IO, "%s: %s", path, strerror(errno));
    uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (left >= bytes) return OK;
    return error_set(err, ERR_IO, "%s would take %.2f GB, the disk has %.2f GB left", path, (double)bytes * 1e-9,
                     (double)left * 1e-9);
}

/* A tensor in pieces of whole blocks; norms are ones. */
static bool write_tensor(const struct synth *s, const struct tensor *t, uint64_t *seed, uint8_t *piece, FILE *f)
{
    uint64_t block = t->type ? dtype_info(synth_type_number(t->type))->block_bytes : 4;
    uint64_t most = PIECE_BYTES / block * block, padding = (ALIGNMENT - t->bytes % ALIGNMENT) % ALIGNMENT;
    for (uint64_t left = t->bytes, n; left > 0; left -= n) {
        n = left < most ? left : most;
        if (t->type)
            synth_type_fill(t->type, seed, 1.0f / sqrtf((float)t->cols), piece, n);
        else
            for (uint64_t i = 0; i < n; i += 4) memcpy(piece + i, &(float){ 1.0f }, 4);
        if (fwrite(piece, 1, n, f) != n) return false;
    }
    memset(piece, 0, padding);
    return fwrite(piece, 1, padding, f) == padding;
}

static enum status write_file(const struct synth *s, struct error *err)
{
    struct strbuf header = STRBUF_INIT;
    enum status st;
    build_header(s, &header);
    if ((st = check_disk(s->path, header.n + s->data_bytes, err)) != OK) goto out;
    FILE *f = fopen(s->path, "wb");
    if (!f) {
        st = error_set(err, ERR_IO, "%s: %s", s->path, strerror(errno));
        goto out;
    }
    uint8_t *piece = mem_alloc(PIECE_BYTES);
    uint64_t seed = s->seed;
    bool ok = fwrite(header.s, 1, header.n, f) == header.n;
    for (uint32_t i = 0; i < s->n_tensors && ok; i++) ok = write_tensor(s, &s->tensors[i], &seed, piece, f);
    int failed = ok ? 0 : errno;
    if (fclose(f) != 0 && ok) failed = errno;
    if (failed) {
        st = error_set(err, ERR_IO, "%s: %s", s->path, strerror(failed));
        struct stat what;
        if (stat(s->path, &what) == 0 && S_ISREG(what.st_mode)) unlink(s->path); /* half a model */
    }
    mem_free(piece);
out:
    strbuf_fini(&header);
    return st;
}

int bench_synth(int argc, char **argv)
{
    struct options o = { 0 };
    struct error err = { 0 };
    int code = command_parse(&COMMAND, &o, argc, argv, NULL);
    if (code >= 0) return code;
    struct synth s = { .path = o.path, .type_name = o.type, .seed = o.seed };
    find_shape(&s, &o);
    enum status st = find_types(&s, o.head, &err);
    bool bad_flag = st != OK;
    if (st == OK) st = plan(&s, &err);
    if (st == OK) st = write_file(&s, &err);
    if (st == OK)
        printf("%s: %s, %u layers, %s, %.1f MB of weights\n", s.path, s.shape.name, s.shape.n_layers, s.type_name,
               (double)s.data_bytes * 1e-6);
    mem_free(s.tensors);
    command_free(&COMMAND, &o);
    int failed = bench_end(&COMMAND, st, &err);
    return bad_flag ? EXIT_USAGE : failed;
}
