/* kv_store.c - the bytes behind block ids: one run of block slices per layer, in backend memory. */
#include "base/bytes.h"
#include "base/huge_pages.h"
#include "base/mem.h"
#include "model/host_memory.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

size_t model_kv_block_bytes(const struct model *m)
{
    struct backend *be = model_backend(m);
    size_t bytes = 0;
    for (uint32_t l = 0; l < model_info(m)->n_layers; l++) {
        struct kv_geometry geom = model_kv_geometry(m, l);
        bytes += be->ops->kv_slice_bytes(be, &geom);
    }
    return bytes;
}

/* Layers one after the other, so that a run of blocks of a layer is one piece. */
static void lay_out(struct kv_store *kv, const struct model *m)
{
    uint8_t *at = kv->memory;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        struct kv_slices *s = &kv->layers[l];
        s->geom = model_kv_geometry(m, l);
        s->slice_bytes = kv->backend->ops->kv_slice_bytes(kv->backend, &s->geom);
        s->base = at;
        at += s->slice_bytes * kv->n_blocks;
    }
}

/* The pool gives out low ids first, and each layer's run begins in a page of its own: without this the first prompt, or
 * the first hand-off into a pool, would wait for a huge page of every layer (60 MiB with 30 layers). */
static void make_first_pages(struct kv_store *kv)
{
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        size_t run = kv->layers[l].slice_bytes * kv->n_blocks;
        memset(kv->layers[l].base, 0, run < HUGE_PAGE_BYTES ? run : HUGE_PAGE_BYTES);
    }
}

enum status kv_store_create(struct kv_store **out, const struct model *m, uint32_t n_blocks, struct error *err)
{
    struct backend *be = model_backend(m);
    uint64_t bytes;
    char what[64];
    void *memory = NULL;
    if (n_blocks == 0) return error_set(err, ERR_INVALID, "KV memory for 0 blocks");
    if (!size_mul(model_kv_block_bytes(m), n_blocks, &bytes) || bytes > PTRDIFF_MAX)
        return error_set(err, ERR_TOO_LARGE, "%u KV blocks of %zu bytes do not fit an address space", n_blocks,
                         model_kv_block_bytes(m));
    snprintf(what, sizeof(what), "%u KV blocks of %zu bytes", n_blocks, model_kv_block_bytes(m));
    enum status st = host_memory_check(be, bytes, what, err);
    if (st != OK) return st;
    if ((st = be->ops->alloc(be, (size_t)bytes, &memory)) != OK)
        return error_set(err, st, "%s: the %s backend cannot give %llu bytes", what, be->ops->name,
                         (unsigned long long)bytes);
    struct kv_store *kv = mem_zalloc(sizeof(*kv));
    kv->n_layers = model_info(m)->n_layers;
    kv->n_blocks = n_blocks;
    kv->layers = mem_array(kv->n_layers, sizeof(*kv->layers));
    kv->memory = memory;
    kv->bytes = (size_t)bytes;
    kv->backend = be;
    lay_out(kv, m);
    if (host_memory_is_of(be)) make_first_pages(kv);
    *out = kv;
    return OK;
}

void kv_store_destroy(struct kv_store *kv)
{
    if (!kv) return;
    kv->backend->ops->release(kv->backend, kv->memory, kv->bytes);
    mem_free(kv->layers);
    mem_free(kv);
}

size_t kv_store_block_bytes(const struct kv_store *kv)
{
    size_t bytes = 0;
    for (uint32_t l = 0; l < kv->n_layers; l++) bytes += kv->layers[l].slice_bytes;
    return bytes;
}

enum status kv_store_read_block(const struct kv_store *kv, uint32_t block, uint8_t *dst)
{
    struct backend *be = kv->backend;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const struct kv_slices *s = &kv->layers[l];
        enum status st = be->ops->download(be, NULL, dst, s->base + block * s->slice_bytes, s->slice_bytes);
        if (st != OK) return st;
        dst += s->slice_bytes;
    }
    return be->ops->sync(be, NULL);
}

enum status kv_store_write_block(const struct kv_store *kv, uint32_t block, const uint8_t *src)
{
    struct backend *be = kv->backend;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const struct kv_slices *s = &kv->layers[l];
        enum status st = be->ops->upload(be, NULL, s->base + block * s->slice_bytes, src, s->slice_bytes);
        if (st != OK) return st;
        src += s->slice_bytes;
    }
    return be->ops->sync(be, NULL);
}

enum status kv_store_copy_block(const struct kv_store *kv, uint32_t to, uint32_t from)
{
    struct backend *be = kv->backend;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const struct kv_slices *s = &kv->layers[l];
        enum status st =
            be->ops->copy(be, NULL, s->base + to * s->slice_bytes, s->base + from * s->slice_bytes, s->slice_bytes);
        if (st != OK) return st;
    }
    return be->ops->sync(be, NULL);
}
