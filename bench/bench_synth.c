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
#define PIECE_BYTES ((size_t)4 << 20)

struct tensor {
    char name[48];
    const struct synth_type *type; /* NULL: floats between low and high, F32 */
    float low, high;
    uint32_t n_dims;
    uint64_t ne[SYNTH_MAX_DIMS], bytes, offset;
};

struct synth {
    const char *path, *type_name;
    struct synth_shape shape;
    const struct synth_type *type;      /* of all matrices, but for: */
    const struct synth_type *head_type; /* the embedding and the head */
    const struct synth_type *more_type; /* what mixes give attn_v and ffn_down of some layers */
    const struct synth_type *experts, *experts_more;
    bool is_mix; /* rows that a type cannot cut get another */
    uint64_t seed;
    struct tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    uint64_t data_bytes;
};

struct options {
    char *path, *shape, *type, *head, *experts;
    uint32_t layers, vocab, seed; /* layers, vocab 0: the shape's */
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_TEXT("out", "o", AT(path), "FILE", NULL, "GGUF file to write"),
    COMMAND_CHOICE("shape", NULL, AT(shape),
                   "smollm2-135m|llama-1b|llama-8b|llama-70b|qwen3-30b-a3b|qwen3.6-35b-a3b|gemma-3-27b|gpt-oss-20b|"
                   "deepseek-v2-lite|small-hybrid|small-windows",
                   NULL, "of this model; small ones are of none, and there is little to compute"),
    COMMAND_TEXT("type", NULL, AT(type), "TYPE", NULL,
                 "a type of GGUF for all matrices, or Q4_K_M: Q4_K with Q6_K for the head, half of attn_v and "
                 "ffn_down, and Q5_0 or "
                 "Q8_0 for rows that these cannot cut"),
    COMMAND_TEXT("head", NULL, AT(head), "TYPE", "", "another type for the embedding and the head"),
    COMMAND_TEXT("experts", NULL, AT(experts), "TYPE", "", "another type for experts; MXFP4 of gpt-oss"),
    COMMAND_NUMBER("layers", NULL, AT(layers), 1, 256, "", "in place of the shape's"),
    COMMAND_NUMBER("vocab", NULL, AT(vocab), SYNTH_MIN_VOCAB, 1u << 20, "", "in place of the shape's"),
    COMMAND_NUMBER("seed", NULL, AT(seed), 0, UINT32_MAX, "1", "of the weights"),
};
static const struct command COMMAND = { "baton-bench synth", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static void find_shape(struct synth *s, const struct options *o)
{
    const struct synth_shape *shape = synth_shape_find(o->shape);
    assert(shape && "every choice of --shape has a row");
    s->shape = *shape;
    if (o->layers) s->shape.n_layers = o->layers;
    if (o->vocab) s->shape.n_vocab = o->vocab;
    synth_shape_derive(&s->shape);
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

static enum status find_types(struct synth *s, const struct options *o, struct error *err)
{
    const char *experts = o->experts ? o->experts : s->shape.experts;
    s->is_mix = strcmp(s->type_name, "Q4_K_M") == 0;
    enum status st = find_type(&s->type, "--type", s->is_mix ? "Q4_K" : s->type_name, err);
    if (st != OK) return st;
    s->more_type = s->is_mix ? synth_type_find("Q6_K") : s->type;
    s->head_type = s->more_type;
    s->experts = s->type;
    s->experts_more = s->more_type;
    if (experts) {
        if ((st = find_type(&s->experts, "--experts", experts, err)) != OK) return st;
        s->experts_more = s->experts;
    }
    return o->head ? find_type(&s->head_type, "--head", o->head, err) : OK;
}

/* Which layers a mix gives more bits: the first and last eighth, and each third between. */
static bool has_more_bits(uint32_t layer, uint32_t n_layers)
{
    uint32_t eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

/* What a mix has for rows that are no multiple of 256 values. */
static const struct synth_type *fit_type(const struct synth *s, const struct synth_type *type, uint64_t cols)
{
    if (!s->is_mix || cols % dtype_info(synth_type_number(type))->block_elems == 0) return type;
    return synth_type_find(type == s->more_type ? "Q8_0" : "Q5_0");
}

static const struct synth_type *type_of(const struct synth *s, enum synth_kind kind, bool more)
{
    switch (kind) {
    case SYNTH_MATRIX: return s->type;
    case SYNTH_MORE: return more ? s->more_type : s->type;
    case SYNTH_HEAD: return s->head_type;
    case SYNTH_EXPERT: return s->experts;
    case SYNTH_EXPERT_MORE: return more ? s->experts_more : s->experts;
    case SYNTH_ROUTER: return synth_type_find("F32");
    case SYNTH_FLOATS: return NULL;
    }
    return NULL;
}

static uint32_t size_at(const struct synth_shape *h, size_t at)
{
    uint32_t n;
    memcpy(&n, (const char *)h + at, sizeof(n));
    return n;
}

/* `more`: the layer is one of those that a mix gives more bits. */
static enum status add_tensor(struct synth *s, const char *prefix, const struct synth_tensor *row, bool more,
                              struct error *err)
{
    assert(s->n_tensors < s->cap_tensors);
    struct tensor *t = &s->tensors[s->n_tensors++];
    uint64_t rows = 1;
    *t = (struct tensor){ .low = row->low, .high = row->high, .offset = s->data_bytes };
    for (; t->n_dims < SYNTH_MAX_DIMS && row->dims[t->n_dims]; t->n_dims++)
        t->ne[t->n_dims] = size_at(&s->shape, row->dims[t->n_dims]);
    for (uint32_t i = 1; i < t->n_dims; i++) rows *= t->ne[i];
    snprintf(t->name, sizeof(t->name), "%s%s", prefix, row->name);
    t->type = type_of(s, row->kind, more);
    if (t->type) t->type = fit_type(s, t->type, t->ne[0]);
    uint32_t number = t->type ? synth_type_number(t->type) : DTYPE_F32;
    const struct dtype_info *info = dtype_info(number);
    if (t->ne[0] % info->block_elems != 0)
        return error_set(err, ERR_INVALID, "%s has rows of %llu values, %s comes in blocks of %u", t->name,
                         (unsigned long long)t->ne[0], info->name, info->block_elems);
    t->bytes = rows * dtype_row_bytes(number, t->ne[0]);
    s->data_bytes += (t->bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return OK;
}

static enum status add_layer(struct synth *s, uint32_t layer, struct error *err)
{
    const struct synth_family *f = s->shape.family;
    const bool more = has_more_bits(layer, s->shape.n_layers);
    char prefix[16];
    enum status st = OK;
    snprintf(prefix, sizeof(prefix), "blk.%u.", layer);
    for (size_t i = 0; st == OK && i < f->n_tensors; i++)
        if (synth_layer_has(&s->shape, layer, f->tensors[i].layers))
            st = add_tensor(s, prefix, &f->tensors[i], more, err);
    return st;
}

static enum status plan(struct synth *s, struct error *err)
{
    static const size_t EMBED[] = { offsetof(struct synth_shape, d_model), offsetof(struct synth_shape, n_vocab) };
    const struct synth_tensor table = { .name = "token_embd.weight",
                                        .kind = SYNTH_HEAD,
                                        .dims = { EMBED[0], EMBED[1] } };
    const struct synth_tensor head = { .name = "output.weight", .kind = SYNTH_HEAD, .dims = { EMBED[0], EMBED[1] } };
    const struct synth_tensor norm = {
        .name = "output_norm.weight", .kind = SYNTH_FLOATS, .dims = { EMBED[0] }, .low = 1.0f, .high = 1.0f
    };
    enum status st;
    s->cap_tensors = 3 + s->shape.n_layers * (uint32_t)s->shape.family->n_tensors;
    s->tensors = mem_array(s->cap_tensors, sizeof(*s->tensors));
    if ((st = add_tensor(s, "", &table, false, err)) != OK) return st;
    for (uint32_t l = 0; l < s->shape.n_layers; l++)
        if ((st = add_layer(s, l, err)) != OK) return st;
    if ((st = add_tensor(s, "", &norm, false, err)) != OK) return st;
    return s->shape.tied ? OK : add_tensor(s, "", &head, false, err);
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
        uint64_t len = strlen(t->name);
        uint32_t type = t->type ? synth_type_number(t->type) : DTYPE_F32;
        strbuf_add(out, &len, 8);
        strbuf_add(out, t->name, len);
        strbuf_add(out, &t->n_dims, 4);
        strbuf_add(out, t->ne, t->n_dims * sizeof(t->ne[0]));
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

/* A tensor in pieces of whole blocks. */
static bool write_tensor(const struct tensor *t, uint64_t *seed, uint8_t *piece, FILE *f)
{
    uint64_t block = t->type ? dtype_info(synth_type_number(t->type))->block_bytes : 4;
    uint64_t most = PIECE_BYTES / block * block, padding = (ALIGNMENT - t->bytes % ALIGNMENT) % ALIGNMENT;
    for (uint64_t left = t->bytes, n; left > 0; left -= n) {
        n = left < most ? left : most;
        if (t->type)
            synth_type_fill(t->type, seed, 1.0f / sqrtf((float)t->ne[0]), piece, n);
        else
            synth_floats_fill(seed, t->low, t->high, (float *)(void *)piece, n / sizeof(float));
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
    for (uint32_t i = 0; i < s->n_tensors && ok; i++) ok = write_tensor(&s->tensors[i], &seed, piece, f);
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
    enum status st = find_types(&s, &o, &err);
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
