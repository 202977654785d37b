/* meta.h - one file's metadata under its family's prefix, checked as it is read.
 *
 * Every error names the whole key, its value and what is allowed. */
#ifndef MODEL_META_H
#define MODEL_META_H
#include "base/bytes.h"
#include "base/error.h"

#include <stdint.h>

struct gguf;

#define META_KEY_MAX 128

struct meta {
    const struct gguf *g;
    const char *family; /* the prefix */
    struct error *err;
};

const char *meta_key(const struct meta *m, char key[META_KEY_MAX], const char *name);
bool meta_has(const struct meta *m, const char *name);
/* ERR_PARSE if the key is missing. */
enum status meta_u32(const struct meta *m, const char *name, uint32_t min, uint32_t max, uint32_t *out) MUST_CHECK;
enum status meta_u32_or(const struct meta *m, const char *name, uint32_t fallback, uint32_t min, uint32_t max,
                        uint32_t *out) MUST_CHECK;
enum status meta_f32_or(const struct meta *m, const char *name, float fallback, float min, float max,
                        float *out) MUST_CHECK;
enum status meta_bool_or(const struct meta *m, const char *name, bool fallback, bool *out) MUST_CHECK;
/* An empty string if the key is missing. */
enum status meta_str(const struct meta *m, const char *name, struct bytes *out) MUST_CHECK;
/* A value per layer: an array of n, or one for all. */
enum status meta_u32_each(const struct meta *m, const char *name, uint32_t min, uint32_t max, uint32_t *out,
                          uint32_t n) MUST_CHECK;
/* Which of n layers: a bool array of n, or an integer p: all but every p-th (1: none, 0: all). */
enum status meta_pattern_or(const struct meta *m, const char *name, uint32_t fallback, bool *out,
                            uint32_t n) MUST_CHECK;
#endif
