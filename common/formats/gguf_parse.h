/* gguf_parse.h - what an open GGUF file is made of; private to formats/. */
#ifndef FORMATS_GGUF_PARSE_H
#define FORMATS_GGUF_PARSE_H
#include "base/strbuf.h"
#include "formats/gguf.h"

#include <sys/stat.h>

#define GGUF_MAX_KEY    65535u /* bytes, as the format says */
#define GGUF_MAX_NAME   255u   /* bytes of a tensor's name; the format's writers stop at 63 */
#define GGUF_MAX_NESTED 8u     /* arrays inside arrays */
#define GGUF_MAX_PARTS  99999u /* five digits in their names */

/* What a file says of the model that it is a part of. */
struct gguf_split {
    uint32_t no, count; /* count 1: it is the whole model */
    uint64_t n_tensors; /* of all parts */
};

/* One file; the first part of a model knows the others. */
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
    struct tensor_dir dir;         /* the file's; the first part's is the model's */
    char *names;                   /* what the names of the file's tensors point into */
    struct gguf_split split;
    struct gguf **parts; /* [n_parts], the first is this one; NULL before gguf_join() and in all but the first */
    uint32_t n_parts;
    int *fds; /* [n_parts] or NULL, as gguf_fds() gives them */
};

/* Bytes of a scalar of `type`; 0 for strings, arrays and unknown types. */
size_t gguf_scalar_bytes(enum gguf_type type);
/* "u32"; "?" outside the enum. */
const char *gguf_type_name(uint32_t type);
const struct gguf_kv *gguf_find_key(const struct gguf *g, struct bytes key); /* NULL if absent */
/* By bytes, then by length. */
int gguf_key_compare(struct bytes a, struct bytes b);

/* Fills everything after `mapped` from g->file. On failure g may be half filled; gguf_close frees it. */
enum status gguf_parse(struct gguf *g, struct error *err) MUST_CHECK;
/* The tensor table, whose first byte is at r->pos; part of gguf_parse. */
enum status gguf_parse_tensors(struct gguf *g, struct reader *r, uint64_t n, struct error *err) MUST_CHECK;

/* "dir/NAME-00002-of-00003.gguf" from the path of any part; false if it does not end in that way, with the count that
 * the model has. */
bool gguf_part_path(struct strbuf *out, const char *path, uint32_t no, uint32_t count) MUST_CHECK;
/* Puts rest[i] behind `first`, which owns them from now on, whatever comes out.  They have to be the first's. */
enum status gguf_join(struct gguf *first, struct gguf *const *rest, uint32_t n_rest, struct error *err) MUST_CHECK;

/* A foreign name made printable and short, for error texts. */
struct gguf_shown {
    char s[72];
};
struct gguf_shown gguf_show(struct bytes name);
#endif
