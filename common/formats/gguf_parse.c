/* gguf_parse.c - checks a GGUF file's header and metadata, and indexes its keys. */
#include "formats/gguf_parse.h"

#include "base/mem.h"

#include <stdlib.h>

/* Least bytes that one entry takes: they bound the counts before anything is allocated. */
enum { MIN_STRING = 8, MIN_ARRAY = 12, MIN_KV = MIN_STRING + 1 + 4 + 1, MIN_TENSOR = 8 + 1 + 4 + 8 + 4 + 8 };

static const struct {
    const char *name;
    uint8_t bytes;
} TYPES[GGUF_TYPE_COUNT] = {
    [GGUF_U8] = { "u8", 1 },       [GGUF_I8] = { "i8", 1 },     [GGUF_U16] = { "u16", 2 },
    [GGUF_I16] = { "i16", 2 },     [GGUF_U32] = { "u32", 4 },   [GGUF_I32] = { "i32", 4 },
    [GGUF_F32] = { "f32", 4 },     [GGUF_BOOL] = { "bool", 1 }, [GGUF_STRING] = { "string", 0 },
    [GGUF_ARRAY] = { "array", 0 }, [GGUF_U64] = { "u64", 8 },   [GGUF_I64] = { "i64", 8 },
    [GGUF_F64] = { "f64", 8 },
};

size_t gguf_scalar_bytes(enum gguf_type type)
{
    return (uint32_t)type < GGUF_TYPE_COUNT ? TYPES[type].bytes : 0;
}

const char *gguf_type_name(uint32_t type)
{
    return type < GGUF_TYPE_COUNT ? TYPES[type].name : "?";
}

int gguf_key_compare(struct bytes a, struct bytes b)
{
    size_t n = a.n < b.n ? a.n : b.n;
    int c = n ? memcmp(a.p, b.p, n) : 0;
    return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

struct gguf_shown gguf_show(struct bytes name)
{
    struct gguf_shown out = { { 0 } };
    size_t n = name.n < sizeof(out.s) - 4 ? name.n : sizeof(out.s) - 4;

    for (size_t i = 0; i < n; i++) out.s[i] = name.p[i] >= 0x20 && name.p[i] < 0x7f ? (char)name.p[i] : '?';
    if (n < name.n) memcpy(out.s + n, "...", 3);
    return out;
}

static enum status truncated(const struct reader *r, const char *what, uint64_t need, struct error *err)
{
    return error_set(err, ERR_PARSE, "%s at byte %zu needs %llu bytes, the file has %zu left", what, r->pos,
                     (unsigned long long)need, reader_left(r));
}

static enum status read_u32(struct reader *r, uint32_t *out, const char *what, struct error *err)
{
    return reader_u32(r, out) ? OK : truncated(r, what, 4, err);
}

static enum status read_u64(struct reader *r, uint64_t *out, const char *what, struct error *err)
{
    return reader_u64(r, out) ? OK : truncated(r, what, 8, err);
}

static enum status read_string(struct reader *r, struct bytes *out, const char *what, struct error *err)
{
    uint64_t n = 0;
    enum status st = read_u64(r, &n, what, err);
    if (st != OK) return st;
    return reader_take(r, n, out) ? OK : truncated(r, what, n, err);
}

static enum status check_bools(const struct reader *r, struct bytes b, struct error *err)
{
    for (size_t i = 0; i < b.n; i++)
        if (b.p[i] > 1)
            return error_set(err, ERR_PARSE, "bool at byte %zu is %u, expected 0 or 1", r->pos - b.n + i, b.p[i]);
    return OK;
}

/* Reads "element type, count" and refuses a count that the rest of the file cannot hold. */
static enum status read_array_head(struct reader *r, uint32_t *elem, uint64_t *n, struct error *err)
{
    size_t at = r->pos;
    enum status st;

    if ((st = read_u32(r, elem, "array's element type", err)) != OK) return st;
    if (*elem >= GGUF_TYPE_COUNT)
        return error_set(err, ERR_PARSE, "array's element type at byte %zu is %u, expected 0 to %d", at, *elem,
                         GGUF_TYPE_COUNT - 1);
    if ((st = read_u64(r, n, "array's count", err)) != OK) return st;
    uint64_t each = *elem == GGUF_STRING  ? MIN_STRING
                    : *elem == GGUF_ARRAY ? MIN_ARRAY
                                          : gguf_scalar_bytes((enum gguf_type) * elem);
    if (*n > reader_left(r) / each)
        return error_set(err, ERR_PARSE,
                         "array at byte %zu: %llu elements of type %s cannot fit into the %zu bytes left", at,
                         (unsigned long long)*n, gguf_type_name(*elem), reader_left(r));
    return OK;
}

/* Takes `n` elements of `type` off the reader.  The count fits (read_array_head), the contents may not. */
static enum status skip_elems(struct reader *r, uint32_t type, uint64_t n, unsigned depth, struct error *err)
{
    struct bytes b;
    enum status st = OK;

    if (type == GGUF_STRING) {
        for (uint64_t i = 0; i < n && st == OK; i++) st = read_string(r, &b, "string in an array", err);
        return st;
    }
    if (type != GGUF_ARRAY) {
        if (!reader_take(r, n * gguf_scalar_bytes((enum gguf_type)type), &b))
            return truncated(r, "array", n * gguf_scalar_bytes((enum gguf_type)type), err);
        return type == GGUF_BOOL ? check_bools(r, b, err) : OK;
    }
    if (depth == 0)
        return error_set(err, ERR_PARSE, "arrays at byte %zu are nested more than %u deep", r->pos, GGUF_MAX_NESTED);
    for (uint64_t i = 0; i < n && st == OK; i++) {
        uint32_t inner = 0;
        uint64_t count = 0;
        st = read_array_head(r, &inner, &count, err);
        if (st == OK) st = skip_elems(r, inner, count, depth - 1, err);
    }
    return st;
}

static enum status read_value(struct reader *r, struct gguf_kv *kv, struct error *err)
{
    enum status st;
    size_t size = gguf_scalar_bytes(kv->type);

    if (kv->type == GGUF_STRING) return read_string(r, &kv->value, "string", err);
    if (kv->type == GGUF_ARRAY) {
        uint32_t elem = 0;
        if ((st = read_array_head(r, &elem, &kv->n, err)) != OK) return st;
        kv->elem_type = (enum gguf_type)elem;
        size_t start = r->pos;
        if ((st = skip_elems(r, elem, kv->n, GGUF_MAX_NESTED - 1, err)) != OK) return st;
        kv->value = bytes_of(r->base + start, r->pos - start);
        return OK;
    }
    if (!reader_take(r, size, &kv->value)) return truncated(r, gguf_type_name(kv->type), size, err);
    return kv->type == GGUF_BOOL ? check_bools(r, kv->value, err) : OK;
}

static enum status read_key(struct reader *r, struct bytes *key, struct error *err)
{
    size_t at = r->pos;
    enum status st = read_string(r, key, "metadata key", err);

    if (st != OK) return st;
    if (key->n == 0 || key->n > GGUF_MAX_KEY)
        return error_set(err, ERR_PARSE, "metadata key at byte %zu has %zu bytes, expected 1 to %u", at, key->n,
                         GGUF_MAX_KEY);
    if (memchr(key->p, 0, key->n)) return error_set(err, ERR_PARSE, "metadata key at byte %zu holds a NUL byte", at);
    return OK;
}

static enum status read_kv(struct reader *r, struct gguf_kv *kv, struct error *err)
{
    enum status st = read_key(r, &kv->key, err);
    uint32_t type = 0;
    size_t at = r->pos;

    if (st != OK) return st;
    if ((st = read_u32(r, &type, "value's type", err)) == OK && type >= GGUF_TYPE_COUNT)
        st = error_set(err, ERR_PARSE, "value's type at byte %zu is %u, expected 0 to %d", at, type,
                       GGUF_TYPE_COUNT - 1);
    if (st == OK) {
        kv->type = (enum gguf_type)type;
        st = read_value(r, kv, err);
    }
    if (st != OK) error_prefix(err, "metadata key '%s'", gguf_show(kv->key).s);
    return st;
}

static int compare_kv(const void *a, const void *b)
{
    const struct gguf_kv *const *x = a, *const *y = b;
    return gguf_key_compare((*x)->key, (*y)->key);
}

static enum status index_keys(struct gguf *g, struct error *err)
{
    void *mem;
    enum status st = mem_try_array(&mem, g->n_kv, sizeof(*g->by_key));

    if (st != OK) return error_set(err, st, "no memory for %zu metadata keys", g->n_kv);
    g->by_key = mem;
    for (size_t i = 0; i < g->n_kv; i++) g->by_key[i] = &g->kvs[i];
    qsort(g->by_key, g->n_kv, sizeof(*g->by_key), compare_kv);
    for (size_t i = 1; i < g->n_kv; i++) {
        if (compare_kv(&g->by_key[i - 1], &g->by_key[i]) != 0) continue;
        return error_set(err, ERR_PARSE, "metadata key '%s' at byte %zu occurs twice", gguf_show(g->by_key[i]->key).s,
                         (size_t)(g->by_key[i]->key.p - g->file.p) - MIN_STRING);
    }
    return OK;
}

static enum status parse_metadata(struct gguf *g, struct reader *r, uint64_t n, struct error *err)
{
    void *mem;
    enum status st;

    if (n > reader_left(r) / MIN_KV)
        return error_set(err, ERR_PARSE,
                         "metadata count at byte 16 is %llu, but the %zu bytes after it hold at most %zu",
                         (unsigned long long)n, reader_left(r), reader_left(r) / MIN_KV);
    if ((st = mem_try_array(&mem, (size_t)n, sizeof(*g->kvs))) != OK)
        return error_set(err, st, "no memory for %llu metadata keys", (unsigned long long)n);
    g->kvs = mem;
    for (; g->n_kv < n; g->n_kv++)
        if ((st = read_kv(r, &g->kvs[g->n_kv], err)) != OK) return st;
    return index_keys(g, err);
}

static enum status parse_alignment(struct gguf *g, struct error *err)
{
    const struct gguf_kv *kv = gguf_find(g, "general.alignment");
    uint32_t a;
    enum status st;

    g->alignment = 32;
    if (!kv) return OK;
    if ((st = gguf_get_u32(g, "general.alignment", &a, err)) != OK) return st;
    if (a < 8 || (a & (a - 1)) != 0)
        return error_set(err, ERR_PARSE, "general.alignment at byte %zu is %u, expected a power of two from 8 on",
                         (size_t)(kv->value.p - g->file.p), a);
    g->alignment = a;
    return OK;
}

static enum status parse_split(struct gguf *g, struct error *err)
{
    uint32_t n_tensors = 0;
    enum status st;

    g->split = (struct gguf_split){ .count = 1 };
    if (!gguf_find(g, "split.count")) return OK;
    if ((st = gguf_get_u32(g, "split.count", &g->split.count, err)) != OK) return st;
    if (g->split.count <= 1) {
        g->split.count = 1;
        return OK;
    }
    if (g->split.count > GGUF_MAX_PARTS)
        return error_set(err, ERR_PARSE, "metadata key split.count is %u, expected at most %u", g->split.count,
                         GGUF_MAX_PARTS);
    if ((st = gguf_get_u32(g, "split.no", &g->split.no, err)) != OK) return st;
    if ((st = gguf_get_u32(g, "split.tensors.count", &n_tensors, err)) != OK) return st;
    g->split.n_tensors = n_tensors;
    if (g->split.no < g->split.count) return OK;
    return error_set(err, ERR_PARSE, "metadata key split.no is %u and split.count %u: it has to be below that",
                     g->split.no, g->split.count);
}

static enum status parse_version(struct gguf *g, struct reader *r, struct error *err)
{
    struct bytes magic;
    enum status st;

    if (!reader_take(r, 4, &magic) || !bytes_eq(magic, "GGUF", 4))
        return error_set(err, ERR_PARSE, "not a GGUF file: byte 0 should start the word \"GGUF\"");
    if ((st = read_u32(r, &g->version, "version", err)) != OK) return st;
    if (g->version != 0 && (g->version & 0xffff) == 0)
        return error_set(err, ERR_UNSUPPORTED, "a big-endian GGUF file (version %u): convert it to little-endian",
                         __builtin_bswap32(g->version));
    if (g->version != 2 && g->version != 3)
        return error_set(err, ERR_UNSUPPORTED, "GGUF version at byte 4 is %u, expected 2 or 3", g->version);
    return OK;
}

enum status gguf_parse(struct gguf *g, struct error *err)
{
    struct reader r = reader_of(g->file);
    uint64_t n_tensors = 0, n_kv = 0;
    enum status st;

    if ((st = parse_version(g, &r, err)) != OK) return st;
    if ((st = read_u64(&r, &n_tensors, "tensor count", err)) != OK) return st;
    if ((st = read_u64(&r, &n_kv, "metadata count", err)) != OK) return st;
    if (n_tensors > reader_left(&r) / MIN_TENSOR)
        return error_set(err, ERR_PARSE, "tensor count at byte 8 is %llu, but the %zu bytes after it hold at most %zu",
                         (unsigned long long)n_tensors, reader_left(&r), reader_left(&r) / MIN_TENSOR);
    if ((st = parse_metadata(g, &r, n_kv, err)) != OK) return st;
    if ((st = parse_alignment(g, err)) != OK) return st;
    if ((st = parse_split(g, err)) != OK) return st;
    return gguf_parse_tensors(g, &r, n_tensors, err);
}
