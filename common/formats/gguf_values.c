/* gguf_values.c - typed reads of GGUF metadata. */
#include "formats/gguf_parse.h"

/* An integer or bool of any width as sign and magnitude, so that u64 and i64 both fit. */
struct any_int {
    bool negative;
    uint64_t magnitude;
};

static uint64_t little_endian(const uint8_t *p, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n; i++) v |= (uint64_t)p[i] << 8 * i;
    return v;
}

static bool any_int_read(enum gguf_type type, const uint8_t *p, struct any_int *out)
{
    size_t n = gguf_scalar_bytes(type);
    bool is_signed = type == GGUF_I8 || type == GGUF_I16 || type == GGUF_I32 || type == GGUF_I64;

    if (n == 0 || type == GGUF_F32 || type == GGUF_F64) return false;
    uint64_t v = little_endian(p, n);
    out->negative = is_signed && v >> (8 * n - 1);
    if (out->negative && n < 8) v |= UINT64_MAX << 8 * n;
    out->magnitude = out->negative ? 0 - v : v;
    return true;
}

static bool any_float_read(enum gguf_type type, const uint8_t *p, double *out)
{
    struct any_int i;
    float f;

    if (type == GGUF_F32) {
        memcpy(&f, p, 4);
        *out = (double)f;
    } else if (type == GGUF_F64) {
        memcpy(out, p, 8);
    } else if (type != GGUF_BOOL && any_int_read(type, p, &i)) {
        *out = i.negative ? -(double)i.magnitude : (double)i.magnitude;
    } else {
        return false;
    }
    return true;
}

static enum status find(const struct gguf *g, const char *key, const struct gguf_kv **out, struct error *err)
{
    *out = gguf_find(g, key);
    return *out ? OK : error_set(err, ERR_NOT_FOUND, "metadata has no key '%s'", key);
}

static enum status wrong_type(const struct gguf *g, const struct gguf_kv *kv, const char *wanted, struct error *err)
{
    return error_set(err, ERR_PARSE, "metadata key '%s' at byte %zu is of type %s, expected %s", gguf_show(kv->key).s,
                     (size_t)(kv->value.p - g->file.p), gguf_type_name(kv->type), wanted);
}

enum status gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct error *err)
{
    const struct gguf_kv *kv;
    struct any_int v;
    enum status st = find(g, key, &kv, err);

    if (st != OK) return st;
    if (kv->type == GGUF_BOOL || !any_int_read(kv->type, kv->value.p, &v)) return wrong_type(g, kv, "an integer", err);
    if (v.negative || v.magnitude > UINT32_MAX)
        return error_set(err, ERR_PARSE, "metadata key '%s' at byte %zu is %s%llu, expected 0 to %u", key,
                         (size_t)(kv->value.p - g->file.p), v.negative ? "-" : "", (unsigned long long)v.magnitude,
                         UINT32_MAX);
    *out = (uint32_t)v.magnitude;
    return OK;
}

enum status gguf_get_f32(const struct gguf *g, const char *key, float *out, struct error *err)
{
    const struct gguf_kv *kv;
    double v;
    enum status st = find(g, key, &kv, err);

    if (st != OK) return st;
    if (!any_float_read(kv->type, kv->value.p, &v)) return wrong_type(g, kv, "a number", err);
    *out = (float)v;
    return OK;
}

enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    const struct gguf_kv *kv;
    struct any_int v;
    enum status st = find(g, key, &kv, err);

    if (st != OK) return st;
    if (!any_int_read(kv->type, kv->value.p, &v) || v.negative || v.magnitude > 1)
        return wrong_type(g, kv, "bool, or an integer of 0 or 1", err);
    *out = v.magnitude == 1;
    return OK;
}

enum status gguf_get_str(const struct gguf *g, const char *key, struct bytes *out, struct error *err)
{
    const struct gguf_kv *kv;
    enum status st = find(g, key, &kv, err);

    if (st != OK) return st;
    if (kv->type != GGUF_STRING) return wrong_type(g, kv, "string", err);
    *out = kv->value;
    return OK;
}

bool gguf_array_next_str(const struct gguf_kv *kv, struct gguf_str_iter *it, struct bytes *out)
{
    struct reader r = reader_of(kv->value);
    uint64_t n;

    if (kv->type != GGUF_ARRAY || kv->elem_type != GGUF_STRING || it->i >= kv->n) return false;
    r.pos = it->pos;
    if (!reader_u64(&r, &n) || !reader_take(&r, n, out)) return false;
    it->i++;
    it->pos = r.pos;
    return true;
}

static const uint8_t *element(const struct gguf_kv *kv, uint64_t i)
{
    size_t size = gguf_scalar_bytes(kv->elem_type);
    return kv->type == GGUF_ARRAY && size && i < kv->n ? kv->value.p + i * size : NULL;
}

bool gguf_array_f64(const struct gguf_kv *kv, uint64_t i, double *out)
{
    const uint8_t *p = element(kv, i);
    return p && any_float_read(kv->elem_type, p, out);
}

bool gguf_array_i64(const struct gguf_kv *kv, uint64_t i, int64_t *out)
{
    const uint8_t *p = element(kv, i);
    struct any_int v;

    if (!p || !any_int_read(kv->elem_type, p, &v)) return false;
    if (v.magnitude > (uint64_t)INT64_MAX + v.negative) return false;
    *out = v.negative ? (int64_t)(0 - v.magnitude) : (int64_t)v.magnitude;
    return true;
}
