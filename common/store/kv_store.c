/* kv_store.c - the bytes behind block ids: one run of block slices per layer, in backend memory. */
#include "store/kv_store.h"

#include "base/bytes.h"
#include "base/host_memory.h"
#include "base/huge_pages.h"
#include "base/mem.h"
#include "store/state_store.h"

#include <stdio.h>
#include <string.h>

static size_t slice_bytes(struct backend *backend, const struct kv_geometry *geom)
{
    return geom->n_kv_heads > 0 ? backend->ops->kv_slice_bytes(backend, geom) : 0;
}

size_t kv_store_bytes_for(struct backend *backend, const struct kv_geometry *layers, uint32_t n_layers)
{
    size_t bytes = 0;
    for (uint32_t l = 0; l < n_layers; l++) bytes += slice_bytes(backend, &layers[l]);
    return bytes;
}

/* Layers one after the other, so that a run of blocks of a layer is one piece. */
static void lay_out(struct kv_store *kv, const struct kv_geometry *layers)
{
    uint8_t *at = kv->memory;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const size_t slice = slice_bytes(kv->backend, &layers[l]);
        kv->layers[l] = (struct kv_slices){ at, slice, layers[l] };
        at += slice * kv->n_blocks;
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

enum status kv_store_create(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                            uint32_t n_layers, uint32_t n_blocks, struct error *err)
{
    const size_t block = kv_store_bytes_for(backend, layers, n_layers);
    uint64_t bytes;
    char what[64];
    void *memory = NULL;
    if (n_blocks == 0) return error_set(err, ERR_INVALID, "KV memory for 0 blocks");
    if (!size_mul(block, n_blocks, &bytes) || bytes > PTRDIFF_MAX)
        return error_set(err, ERR_TOO_LARGE, "%u KV blocks of %zu bytes do not fit an address space", n_blocks, block);
    snprintf(what, sizeof(what), "%u KV blocks of %zu bytes", n_blocks, block);
    /* A backend with memory of its own says so itself when it allocates. */
    enum status st = backend->caps.host_memory ? host_memory_check(bytes, what, err) : OK;
    if (st != OK) return st;
    if ((st = backend->ops->alloc(backend, (size_t)bytes, &memory)) != OK)
        return error_set(err, st, "%s: the %s backend cannot give %llu bytes", what, backend->ops->name,
                         (unsigned long long)bytes);
    struct kv_store *kv = mem_zalloc(sizeof(*kv));
    *kv = (struct kv_store){ .n_layers = n_layers, .n_blocks = n_blocks, .bytes = (size_t)bytes, .backend = backend };
    kv->layers = mem_array(n_layers, sizeof(*kv->layers));
    kv->memory = memory;
    lay_out(kv, layers);
    if (backend->caps.host_memory) make_first_pages(kv);
    *out = kv;
    return OK;
}

void kv_store_destroy(struct kv_store *kv)
{
    for (struct kv_store *next; kv; kv = next) {
        next = kv->next;
        state_store_destroy(kv->states);
        kv->backend->ops->release(kv->backend, kv->memory, kv->bytes);
        mem_free(kv->layers);
        mem_free(kv);
    }
}

const struct kv_store *kv_store_of(const struct kv_store *kv, uint32_t rank)
{
    for (; rank > 0; rank--) kv = kv->next;
    return kv;
}

uint64_t kv_store_host_bytes(const struct kv_store *kv)
{
    uint64_t bytes = 0;
    for (; kv; kv = kv->next)
        if (kv->backend->caps.host_memory) bytes += kv->bytes + (kv->states ? kv->states->bytes : 0);
    return bytes;
}

size_t kv_store_block_bytes(const struct kv_store *kv)
{
    size_t bytes = 0;
    for (; kv; kv = kv->next)
        for (uint32_t l = 0; l < kv->n_layers; l++) bytes += kv->layers[l].slice_bytes;
    return bytes;
}

enum status kv_store_read_block(const struct kv_store *kv, uint32_t block, uint8_t *dst)
{
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        struct backend *be = kv->backend;
        for (uint32_t l = 0; l < kv->n_layers; l++) {
            const struct kv_slices *s = &kv->layers[l];
            st = be->ops->download(be, NULL, dst, s->base + block * s->slice_bytes, s->slice_bytes);
            if (st != OK) return st;
            dst += s->slice_bytes;
        }
        st = be->ops->sync(be, NULL);
    }
    return st;
}

enum status kv_store_write_block(const struct kv_store *kv, uint32_t block, const uint8_t *src)
{
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        struct backend *be = kv->backend;
        for (uint32_t l = 0; l < kv->n_layers; l++) {
            const struct kv_slices *s = &kv->layers[l];
            st = be->ops->upload(be, NULL, s->base + block * s->slice_bytes, src, s->slice_bytes);
            if (st != OK) return st;
            src += s->slice_bytes;
        }
        st = be->ops->sync(be, NULL);
    }
    return st;
}

enum status kv_store_copy_block(const struct kv_store *kv, uint32_t to, uint32_t from)
{
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        struct backend *be = kv->backend;
        for (uint32_t l = 0; l < kv->n_layers; l++) {
            const struct kv_slices *s = &kv->layers[l];
            st =
                be->ops->copy(be, NULL, s->base + to * s->slice_bytes, s->base + from * s->slice_bytes, s->slice_bytes);
            if (st != OK) return st;
        }
        st = be->ops->sync(be, NULL);
    }
    return st;
}

/* ---- states ---- */

uint32_t kv_store_n_slots(const struct kv_store *kv)
{
    while (kv && !kv->states) kv = kv->next;
    return kv ? kv->states->n_slots : 0;
}

size_t kv_store_state_bytes(const struct kv_store *kv)
{
    size_t bytes = 0;
    for (; kv; kv = kv->next) bytes += kv->states ? kv->states->slot_bytes : 0;
    return bytes;
}

enum status kv_store_copy_state(const struct kv_store *kv, uint32_t from, uint32_t to)
{
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next)
        if (kv->states) st = state_store_copy(kv->states, from, to);
    return st;
}

/* What a rank's states, the bytes [begin, begin + slot_bytes) of all, have of [at, at + n). */
struct part {
    size_t from, n; /* within the rank's */
    size_t before;  /* bytes of [at, at + n) before them */
};

static struct part part_of(const struct state_store *s, size_t begin, size_t at, size_t n)
{
    const size_t from = at > begin ? at - begin : 0, to = at + n > begin ? at + n - begin : 0;
    const size_t end = to < s->slot_bytes ? to : s->slot_bytes;
    return (struct part){ from, end > from ? end - from : 0, begin + from - at };
}

enum status kv_store_read_state(const struct kv_store *kv, uint32_t slot, size_t at, size_t n, uint8_t *dst)
{
    size_t begin = 0;
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        if (!kv->states) continue;
        const struct part p = part_of(kv->states, begin, at, n);
        if (p.n > 0) st = state_store_read(kv->states, slot, p.from, p.n, dst + p.before);
        begin += kv->states->slot_bytes;
    }
    return st;
}

enum status kv_store_write_state(const struct kv_store *kv, uint32_t slot, size_t at, size_t n, const uint8_t *src)
{
    size_t begin = 0;
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        if (!kv->states) continue;
        const struct part p = part_of(kv->states, begin, at, n);
        if (p.n > 0) st = state_store_write(kv->states, slot, p.from, p.n, src + p.before);
        begin += kv->states->slot_bytes;
    }
    return st;
}
