/* fuzz_gguf.c - opens any bytes as a GGUF file, or as parts with BETWEEN between them, and walks all that a reader can
 * reach. */
#include "compute/dtype.h"
#include "formats/file_notes.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"
#include "text/vocab.h"

#include <stdlib.h>
#include <string.h>

#define BETWEEN   "\nnext part\n"
#define MAX_PARTS 4

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void walk_value(const struct gguf_kv *kv)
{
    struct gguf_str_iter it = { 0 };
    struct bytes s;
    double f;
    int64_t v;
    uint64_t sum = 0;

    while (gguf_array_next_str(kv, &it, &s))
        for (size_t i = 0; i < s.n; i++) sum += s.p[i];
    for (uint64_t i = 0; kv->type == GGUF_ARRAY && i < kv->n && i < 1000; i++) {
        sum += gguf_array_f64(kv, i, &f) ? 1 : 0;
        sum += gguf_array_i64(kv, i, &v) ? 1 : 0;
    }
    for (size_t i = 0; i < kv->value.n; i++) sum += kv->value.p[i];
    if (sum == UINT64_MAX) abort(); /* keeps the reads */
}

static void walk_tensors(const struct gguf *g)
{
    const struct tensor_dir *dir = gguf_tensors(g);

    for (size_t i = 0; i < dir->n; i++) {
        const struct tensor_entry *t = &dir->entries[i];
        struct bytes b = gguf_tensor_bytes(g, t);
        struct bytes file = gguf_part(g, t->part);
        if (b.p < file.p || b.p + b.n > file.p + file.n) abort();
        if (b.n != dtype_row_bytes(t->type, t->ne[0]) * t->ne[1] * t->ne[2] * t->ne[3]) abort();
        if (tensor_dir_find(dir, t->name) != t) abort();
        if (i > 200) break; /* find is linear */
    }
}

static void take_note(void *arg, const char *note)
{
    if (!*note) abort();
}

static void walk_vocab(const struct gguf *g)
{
    struct vocab *v;
    uint8_t buf[64];

    if (vocab_load_gguf(&v, g, NULL) != OK) return;
    if (v->n_ids < v->n_tokens) abort();
    file_notes(g, v, take_note, NULL);
    for (uint32_t i = 0; i < v->n_tokens; i++) {
        vocab_token_bytes(v, (int32_t)i, buf, sizeof(buf));
        vocab_is_end(v, (int32_t)i);
    }
    for (uint32_t i = 0; i < v->n_merges; i++)
        if (v->merges[i].n_left == 0 || v->merges[i].n_right == 0) abort();
    vocab_destroy(v);
}

static uint32_t cut(const uint8_t *data, size_t n, struct bytes parts[MAX_PARTS])
{
    const size_t len = sizeof(BETWEEN) - 1;
    uint32_t n_parts = 0;
    const uint8_t *end;

    while (n_parts + 1 < MAX_PARTS && (end = memmem(data, n, BETWEEN, len))) {
        parts[n_parts++] = bytes_of(data, (size_t)(end - data));
        n -= (size_t)(end - data) + len;
        data = end + len;
    }
    parts[n_parts++] = bytes_of(data, n);
    return n_parts;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct bytes parts[MAX_PARTS];
    struct gguf *g;
    struct error err;

    if (gguf_open_parts(&g, parts, cut(data, n, parts), &err) != OK) return 0;
    for (size_t i = 0; i < gguf_n_kv(g); i++) walk_value(gguf_kv_at(g, i));
    walk_tensors(g);
    walk_vocab(g);
    gguf_fingerprint(g);
    gguf_close(g);
    return 0;
}
