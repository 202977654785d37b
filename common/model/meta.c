/* meta.c - typed, bounded reads of a family's metadata. */
#include "model/meta.h"

#include "formats/gguf.h"

#include <assert.h>
#include <stdio.h>

#define META_EACH_MAX 1024 /* layers */

const char *meta_key(const struct meta *m, char key[META_KEY_MAX], const char *name)
{
    snprintf(key, META_KEY_MAX, "%s.%s", m->family, name);
    return key;
}

bool meta_has(const struct meta *m, const char *name)
{
    char key[META_KEY_MAX];
    return gguf_find(m->g, meta_key(m, key, name)) != NULL;
}

static enum status check_u32(const struct meta *m, const char *key, uint32_t v, uint32_t min, uint32_t max)
{
    if (v >= min && v <= max) return OK;
    return error_set(m->err, ERR_INVALID, "metadata key %s is %u, allowed is %u to %u", key, v, min, max);
}

enum status meta_u32(const struct meta *m, const char *name, uint32_t min, uint32_t max, uint32_t *out)
{
    char key[META_KEY_MAX];
    uint32_t v = 0;
    enum status st = gguf_get_u32(m->g, meta_key(m, key, name), &v, m->err);
    if (st == ERR_NOT_FOUND) return error_set(m->err, ERR_PARSE, "metadata key %s is missing", key);
    if (st == OK) st = check_u32(m, key, v, min, max);
    if (st == OK) *out = v;
    return st;
}

enum status meta_u32_or(const struct meta *m, const char *name, uint32_t fallback, uint32_t min, uint32_t max,
                        uint32_t *out)
{
    *out = fallback;
    return meta_has(m, name) ? meta_u32(m, name, min, max, out) : OK;
}

enum status meta_f32_or(const struct meta *m, const char *name, float fallback, float min, float max, float *out)
{
    char key[META_KEY_MAX];
    float v = fallback;
    *out = fallback;
    if (!meta_has(m, name)) return OK;
    enum status st = gguf_get_f32(m->g, meta_key(m, key, name), &v, m->err);
    if (st != OK) return st;
    if (!(v >= min && v <= max)) /* NaN fails as well */
        return error_set(m->err, ERR_INVALID, "metadata key %s is %g, allowed is %g to %g", key, (double)v, (double)min,
                         (double)max);
    *out = v;
    return OK;
}

enum status meta_bool_or(const struct meta *m, const char *name, bool fallback, bool *out)
{
    char key[META_KEY_MAX];
    *out = fallback;
    return meta_has(m, name) ? gguf_get_bool(m->g, meta_key(m, key, name), out, m->err) : OK;
}

enum status meta_str(const struct meta *m, const char *name, struct bytes *out)
{
    char key[META_KEY_MAX];
    *out = (struct bytes){ 0 };
    return meta_has(m, name) ? gguf_get_str(m->g, meta_key(m, key, name), out, m->err) : OK;
}

static enum status u32_array(const struct meta *m, const char *key, const struct gguf_kv *kv, uint32_t min,
                             uint32_t max, uint32_t *out, uint32_t n)
{
    uint32_t all = n; /* with layers that are not loaded */
    enum status st = meta_u32_or(m, "block_count", n, 1, UINT32_MAX, &all);
    if (st != OK) return st;
    if (kv->n != n && kv->n != all)
        return error_set(m->err, ERR_INVALID, "metadata key %s has %llu values for %u layers", key,
                         (unsigned long long)kv->n, n);
    for (uint32_t i = 0; i < n; i++) {
        int64_t v;
        if (!gguf_array_i64(kv, i, &v))
            return error_set(m->err, ERR_PARSE, "metadata key %s is not an array of integers", key);
        if (v < (int64_t)min || v > (int64_t)max)
            return error_set(m->err, ERR_INVALID, "metadata key %s is %lld for layer %u, allowed is %u to %u", key,
                             (long long)v, i, min, max);
        out[i] = (uint32_t)v;
    }
    return OK;
}

enum status meta_u32_each(const struct meta *m, const char *name, uint32_t min, uint32_t max, uint32_t *out, uint32_t n)
{
    char key[META_KEY_MAX];
    const struct gguf_kv *kv = gguf_find(m->g, meta_key(m, key, name));
    if (kv && kv->type == GGUF_ARRAY) return u32_array(m, key, kv, min, max, out, n);
    enum status st = meta_u32(m, name, min, max, &out[0]);
    for (uint32_t i = 1; st == OK && i < n; i++) out[i] = out[0];
    return st;
}

enum status meta_pattern_or(const struct meta *m, const char *name, uint32_t fallback, bool *out, uint32_t n)
{
    char key[META_KEY_MAX];
    const struct gguf_kv *kv = gguf_find(m->g, meta_key(m, key, name));
    uint32_t each[META_EACH_MAX], period;
    enum status st;
    assert(n <= META_EACH_MAX);
    if (kv && kv->type == GGUF_ARRAY) {
        st = u32_array(m, key, kv, 0, 1, each, n);
        for (uint32_t i = 0; st == OK && i < n; i++) out[i] = each[i] != 0;
        return st;
    }
    st = meta_u32_or(m, name, fallback, 0, UINT32_MAX, &period);
    for (uint32_t i = 0; st == OK && i < n; i++) out[i] = period == 0 || i % period < period - 1;
    return st;
}
