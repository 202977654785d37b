/* gguf_parse.h - what an open GGUF file is made of; private to formats/. */
#ifndef FORMATS_GGUF_PARSE_H
#define FORMATS_GGUF_PARSE_H
#include "formats/gguf.h"

#include <sys/stat.h>

#define GGUF_MAX_KEY    65535u /* bytes, as the format says */
#define GGUF_MAX_NAME   255u   /* bytes of a tensor's name; the format's writers stop at 63 */
#define GGUF_MAX_NESTED 8u     /* arrays inside arrays */

struct gguf {
    struct bytes file;
    int fd;             /* -1: the caller's memory */
    bool mapped;        /* file is our mapping */
    struct stat opened; /* the file as it was opened */
    uint32_t version;
    uint64_t alignment;
    uint64_t data_start; /* first byte of tensor contents, <= file.n */
    struct gguf_kv *kvs; /* in the file's order */
    size_t n_kv;
    const struct gguf_kv **by_key; /* sorted by key */
    struct tensor_dir dir;
    char *names; /* what dir's names point into */
};

/* Bytes of a scalar of `type`; 0 for strings, arrays and unknown types. */
size_t gguf_scalar_bytes(enum gguf_type type);
/* "u32"; "?" outside the enum. */
const char *gguf_type_name(uint32_t type);
/* By bytes, then by length. */
int gguf_key_compare(struct bytes a, struct bytes b);

/* Fills everything after `mapped` from g->file. On failure g may be half filled; gguf_close frees it. */
enum status gguf_parse(struct gguf *g, struct error *err) MUST_CHECK;
/* The tensor table, whose first byte is at r->pos; part of gguf_parse. */
enum status gguf_parse_tensors(struct gguf *g, struct reader *r, uint64_t n, struct error *err) MUST_CHECK;

/* A foreign name made printable and short, for error texts. */
struct gguf_shown {
    char s[72];
};
struct gguf_shown gguf_show(struct bytes name);
#endif
