/* gguf.h - reads GGUF v2 and v3 files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
 *
 * A model is one file, or several parts of one (NAME-00001-of-0000N.gguf), which are opened by the first part's name:
 * its metadata is the model's, and the tensors of all parts stand in one directory.  Files are mapped read-only;
 * nothing in it is trusted: every length, count, offset, alignment and product is checked before use, and an error
 * names what is wrong, at which byte, and what was expected. */
#ifndef FORMATS_GGUF_H
#define FORMATS_GGUF_H
#include "base/bytes.h"
#include "base/error.h"
#include "formats/tensor_dir.h"

/* The format's numbers. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPE_COUNT
};

struct gguf_kv {
    struct bytes key;
    enum gguf_type type;
    enum gguf_type elem_type; /* arrays only */
    uint64_t n;               /* arrays: elements */
    struct bytes value;       /* scalar bytes, string bytes, or an array's packed elements */
};

struct gguf;

/* Opens and checks a whole model (header, metadata, tensor table; not tensor contents). Caller owns.
 * ERR_INVALID: a part that is not the first.  ERR_NOT_FOUND: no such file, or a part is missing.  ERR_MISMATCH: the
 * parts are not of one model. */
enum status gguf_open(struct gguf **out, const char *path, struct error *err) MUST_CHECK;
/* The same over memory that the caller keeps alive (fuzzing, tests): a file, or n_parts > 0 of them in order. */
enum status gguf_open_bytes(struct gguf **out, struct bytes file, struct error *err) MUST_CHECK;
enum status gguf_open_parts(struct gguf **out, const struct bytes *parts, uint32_t n_parts,
                            struct error *err) MUST_CHECK;
void gguf_close(struct gguf *g);

uint32_t gguf_version(const struct gguf *g);
size_t gguf_n_kv(const struct gguf *g);
const struct gguf_kv *gguf_kv_at(const struct gguf *g, size_t i);
const struct gguf_kv *gguf_find(const struct gguf *g, const char *key); /* NULL if absent */
const struct tensor_dir *gguf_tensors(const struct gguf *g);
uint32_t gguf_n_parts(const struct gguf *g);                 /* 1 for a model in one file */
struct bytes gguf_part(const struct gguf *g, uint32_t part); /* the whole mapped file */
uint64_t gguf_all_bytes(const struct gguf *g);               /* of all parts */
struct bytes gguf_tensor_bytes(const struct gguf *g, const struct tensor_entry *t);
const int *gguf_fds(const struct gguf *g); /* [gguf_n_parts()]; NULL over the caller's memory */
/* ERR_CORRUPT: a file's size or time stamp is not what it was when it was opened. */
enum status gguf_check_unchanged(const struct gguf *g, struct error *err) MUST_CHECK;

/* Typed reads.  Any integer type converts if the value fits.  ERR_NOT_FOUND: no such key;
 * ERR_PARSE: of another type (err names both). */
enum status gguf_get_u32(const struct gguf *g, const char *key, uint32_t *out, struct error *err) MUST_CHECK;
enum status gguf_get_f32(const struct gguf *g, const char *key, float *out, struct error *err) MUST_CHECK;
enum status gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err) MUST_CHECK;
enum status gguf_get_str(const struct gguf *g, const char *key, struct bytes *out, struct error *err) MUST_CHECK;
/* Elements of an array of strings, one after the other. Start with a zeroed iterator. */
struct gguf_str_iter {
    size_t i;
    size_t pos;
};
bool gguf_array_next_str(const struct gguf_kv *kv, struct gguf_str_iter *it, struct bytes *out);
/* Element i (< kv->n) of a numeric array as a double / integer; false if it is not numeric. */
bool gguf_array_f64(const struct gguf_kv *kv, uint64_t i, double *out);
bool gguf_array_i64(const struct gguf_kv *kv, uint64_t i, int64_t *out);

/* XXH3-64 of metadata, tensor table and 4 KiB from the middle of each tensor (never of the whole file). */
uint64_t gguf_fingerprint(const struct gguf *g);
#endif
