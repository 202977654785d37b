/* gguf_build.h - writes a small GGUF file in memory, for tests.
 *
 *     struct gguf_build b;
 *     gguf_build_init(&b, 3);
 *     gguf_build_str(&b, "general.architecture", "llama");
 *     gguf_build_tensor(&b, "x.weight", DTYPE_F32, 2, (uint64_t[]){ 4, 2 }, floats, 32);
 *     uint8_t *file = gguf_build_finish(&b, &n);   // mem_free
 *
 * Nothing is checked, so that broken files can be made as well. */
#ifndef HELPERS_GGUF_BUILD_H
#define HELPERS_GGUF_BUILD_H
#include "base/strbuf.h"

#include <stdint.h>

struct gguf_build {
    uint32_t version;
    uint32_t alignment; /* of tensor contents; 32, or as set by gguf_build_alignment */
    uint64_t n_kv, n_tensors;
    struct strbuf kvs, table, data;
};

void gguf_build_init(struct gguf_build *b, uint32_t version);
/* Writes general.alignment; before the first tensor. */
void gguf_build_alignment(struct gguf_build *b, uint32_t alignment);
void gguf_build_u32(struct gguf_build *b, const char *key, uint32_t v);
void gguf_build_i32(struct gguf_build *b, const char *key, int32_t v);
void gguf_build_u64(struct gguf_build *b, const char *key, uint64_t v);
void gguf_build_f32(struct gguf_build *b, const char *key, float v);
void gguf_build_bool(struct gguf_build *b, const char *key, bool v);
void gguf_build_str(struct gguf_build *b, const char *key, const char *v);
void gguf_build_strs(struct gguf_build *b, const char *key, const char *const *v, size_t n);
void gguf_build_i32s(struct gguf_build *b, const char *key, const int32_t *v, size_t n);
void gguf_build_f32s(struct gguf_build *b, const char *key, const float *v, size_t n);
/* Any type number, and the value's bytes as the format packs them (for an array: from its element type on). */
void gguf_build_raw(struct gguf_build *b, const char *key, uint32_t type, const void *value, size_t n);
/* `data` of `bytes` bytes is copied; NULL writes zeros. */
void gguf_build_tensor(struct gguf_build *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *ne,
                       const void *data, size_t bytes);
/* The whole file (mem_free); the builder is empty afterwards. */
uint8_t *gguf_build_finish(struct gguf_build *b, size_t *n);
/* Writes the whole file to `path`; false if that fails. */
bool gguf_build_save(struct gguf_build *b, const char *path);
#endif
