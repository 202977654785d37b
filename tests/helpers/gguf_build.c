/* gguf_build.c - writes a small GGUF file in memory, for tests. */
#include "helpers/gguf_build.h"

#include "base/mem.h"

#include <stdio.h>
#include <string.h>

enum { U32 = 4, I32 = 5, F32 = 6, BOOL = 7, STRING = 8, ARRAY = 9, U64 = 10 }; /* the format's */

static void add_u32(struct strbuf *sb, uint32_t v)
{
    strbuf_add(sb, &v, 4);
}

static void add_u64(struct strbuf *sb, uint64_t v)
{
    strbuf_add(sb, &v, 8);
}

static void add_string(struct strbuf *sb, const char *s)
{
    add_u64(sb, strlen(s));
    strbuf_puts(sb, s);
}

static void pad(struct strbuf *sb, size_t alignment)
{
    while (alignment && sb->n % alignment) strbuf_putc(sb, '\0');
}

void gguf_build_init(struct gguf_build *b, uint32_t version)
{
    *b = (struct gguf_build){ .version = version, .alignment = 32 };
}

void gguf_build_alignment(struct gguf_build *b, uint32_t alignment)
{
    gguf_build_u32(b, "general.alignment", alignment);
    b->alignment = alignment;
}

void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *value, size_t n)
{
    add_string(&b->kvs, key);
    add_u32(&b->kvs, type);
    strbuf_add(&b->kvs, value, n);
    b->n_kv++;
}

void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v)
{
    gguf_build_raw(b, key, U32, &v, 4);
}

void gguf_build_i32(struct gguf_build *b, const char *key, int32_t v)
{
    gguf_build_raw(b, key, I32, &v, 4);
}

void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t v)
{
    gguf_build_raw(b, key, U64, &v, 8);
}

void gguf_build_f32(struct gguf_build *b, const char *key, float v)
{
    gguf_build_raw(b, key, F32, &v, 4);
}

void gguf_build_bool(struct gguf_build *b, const char *key, bool v)
{
    gguf_build_raw(b, key, BOOL, &(uint8_t){ v }, 1);
}

void gguf_build_str(struct gguf_build *b, const char *key, const char *v)
{
    struct strbuf value = STRBUF_INIT;
    add_string(&value, v);
    gguf_build_raw(b, key, STRING, value.s, value.n);
    strbuf_fini(&value);
}

static void add_array(struct gguf_build *b, const char *key, uint32_t elem, uint64_t n, const void *p, size_t bytes)
{
    struct strbuf value = STRBUF_INIT;
    add_u32(&value, elem);
    add_u64(&value, n);
    strbuf_add(&value, p, bytes);
    gguf_build_raw(b, key, ARRAY, value.s, value.n);
    strbuf_fini(&value);
}

void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *v, size_t n)
{
    struct strbuf packed = STRBUF_INIT;
    for (size_t i = 0; i < n; i++) add_string(&packed, v[i]);
    add_array(b, key, STRING, n, strbuf_cstr(&packed), packed.n);
    strbuf_fini(&packed);
}

void gguf_build_i32s(struct gguf_build *b, const char *key, const int32_t *v, size_t n)
{
    add_array(b, key, I32, n, v, n * 4);
}

void gguf_build_f32s(struct gguf_build *b, const char *key, const float *v, size_t n)
{
    add_array(b, key, F32, n, v, n * 4);
}

void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
                       const void *data, size_t bytes)
{
    pad(&b->data, b->alignment);
    add_string(&b->table, name);
    add_u32(&b->table, n_dims);
    strbuf_add(&b->table, ne, n_dims * sizeof(*ne));
    add_u32(&b->table, type);
    add_u64(&b->table, b->data.n);
    if (data) {
        strbuf_add(&b->data, data, bytes);
    } else {
        for (size_t i = 0; i < bytes; i++) strbuf_putc(&b->data, '\0');
    }
    b->n_tensors++;
}

uint8_t *gguf_build_finish(struct gguf_build *b, size_t *n)
{
    struct strbuf file = STRBUF_INIT;

    strbuf_puts(&file, "GGUF");
    add_u32(&file, b->version);
    add_u64(&file, b->n_tensors);
    add_u64(&file, b->n_kv);
    strbuf_add(&file, strbuf_cstr(&b->kvs), b->kvs.n);
    strbuf_add(&file, strbuf_cstr(&b->table), b->table.n);
    if (b->data.n) pad(&file, b->alignment);
    strbuf_add(&file, strbuf_cstr(&b->data), b->data.n);
    strbuf_fini(&b->kvs);
    strbuf_fini(&b->table);
    strbuf_fini(&b->data);
    gguf_build_init(b, b->version);
    return (uint8_t *)strbuf_take(&file, n);
}

bool gguf_build_save(struct gguf_build *b, const char *path)
{
    size_t n;
    uint8_t *file = gguf_build_finish(b, &n);
    FILE *f = fopen(path, "wb");
    bool ok = f && fwrite(file, 1, n, f) == n;

    if (f && fclose(f) != 0) ok = false;
    mem_free(file);
    return ok;
}
