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

size_t kv_store_window_bytes_for(struct backend *backend, const struct kv_geometry *layers, uint32_t n_layers)
{
    size_t bytes = 0;
    for (uint32_t l = 0; l < n_layers; l++)
        if (layers[l].window > 0) bytes += slice_bytes(backend, &layers[l]);
    return bytes;
}

static uint32_t n_blocks_of(const struct kv_store *kv, const struct kv_slices *s)
{
    return s->windowed ? kv->n_window_blocks : kv->n_blocks;
}

/* Layers one after the other, so that a run of blocks of a layer is one piece. */
static void lay_out(struct kv_store *kv, const struct kv_geometry *layers)
{
    uint8_t *at = kv->memory;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const size_t slice = slice_bytes(kv->backend, &layers[l]);
        kv->layers[l] =
            (struct kv_slices){ at, slice, layers[l], kv->n_window_blocks > 0 && layers[l].window > 0, slice };
        kv->held[l] = held_all(layers[l].n_kv_heads);
        at += slice * n_blocks_of(kv, &kv->layers[l]);
    }
}

/* The pool gives out low ids first, and each layer's run begins in a page of its own: without this the first prompt, or
 * the first hand-off into a pool, would wait for a huge page of every layer (60 MiB with 30 layers). */
static void make_first_pages(struct kv_store *kv)
{
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        size_t run = kv->layers[l].slice_bytes * n_blocks_of(kv, &kv->layers[l]);
        memset(kv->layers[l].base, 0, run < HUGE_PAGE_BYTES ? run : HUGE_PAGE_BYTES);
    }
}

/* ERR_TOO_LARGE: more than can be counted. */
static enum status count_bytes(uint64_t *out, size_t block, uint32_t n_blocks, size_t window, uint32_t n_window_blocks,
                               struct error *err)
{
    uint64_t windows;
    if (n_window_blocks > 0) block -= window;
    if (size_mul(block, n_blocks, out) && size_mul(window, n_window_blocks, &windows) && size_add(*out, windows, out) &&
        *out <= PTRDIFF_MAX)
        return OK;
    return error_set(err, ERR_TOO_LARGE, "%u KV blocks of %zu bytes do not fit an address space", n_blocks, block);
}

/* Memory, and room for the layers' slices, which are still to be laid out. */
static enum status create(struct kv_store **out, struct backend *backend, uint32_t n_layers, uint32_t n_blocks,
                          size_t block, uint64_t bytes, struct error *err)
{
    char what[96];
    void *memory = NULL;
    enum status st = OK;
    snprintf(what, sizeof(what), "%u KV blocks of %zu bytes", n_blocks, block);
    /* A backend with memory of its own says so itself when it allocates. */
    if (backend->caps.host_memory && (st = host_memory_check(bytes, what, err)) != OK) return st;
    if ((st = backend->ops->alloc(backend, (size_t)bytes, &memory)) != OK)
        return error_set(err, st, "%s: the %s backend cannot give %llu bytes", what, backend->ops->name,
                         (unsigned long long)bytes);
    struct kv_store *kv = mem_zalloc(sizeof(*kv));
    *kv = (struct kv_store){
        .n_layers = n_layers, .n_blocks = n_blocks, .memory = memory, .bytes = (size_t)bytes, .backend = backend
    };
    kv->layers = mem_array(n_layers, sizeof(*kv->layers));
    kv->held = mem_array(n_layers, sizeof(*kv->held));
    *out = kv;
    return OK;
}

enum status kv_store_create_windowed(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                                     uint32_t n_layers, uint32_t n_blocks, uint32_t n_window_blocks, struct error *err)
{
    const size_t block = kv_store_bytes_for(backend, layers, n_layers),
                 window = kv_store_window_bytes_for(backend, layers, n_layers);
    uint64_t bytes;
    struct kv_store *kv;
    if (n_blocks == 0) return error_set(err, ERR_INVALID, "KV memory for 0 blocks");
    enum status st = count_bytes(&bytes, block, n_blocks, window, n_window_blocks, err);
    if (st == OK) st = create(&kv, backend, n_layers, n_blocks, block, bytes, err);
    if (st != OK) return st;
    kv->n_window_blocks = window > 0 ? n_window_blocks : 0;
    lay_out(kv, layers);
    if (backend->caps.host_memory) make_first_pages(kv);
    *out = kv;
    return OK;
}

/* ---- one memory for all ---- */

static size_t rounded(size_t bytes, size_t to)
{
    return (bytes + to - 1) / to * to;
}

static uint32_t run_of(size_t bytes, size_t block)
{
    return (uint32_t)((bytes + block - 1) / block);
}

struct kv_runs kv_runs_for(size_t others, size_t windows, size_t slot)
{
    struct kv_runs runs = { 0 };
    size_t block = others;
    if (others == 0) return runs;
    if (windows > 0) { /* either the run has too much room, or, one shorter, each block */
        const size_t more = run_of(windows, others), fewer = more - 1;
        const bool shorter = fewer > 0 && (double)windows / (double)fewer / (double)others <
                                              (double)more * (double)others / (double)windows;
        runs.window = (uint32_t)(shorter ? fewer : more);
        if (shorter) block = run_of(windows, fewer);
    }
    if (slot > 0) runs.slot = run_of(slot, block);
    return runs;
}

size_t kv_store_shared_bytes_for(struct backend *backend, const struct kv_geometry *layers,
                                 const struct state_layer_geometry *states, uint32_t n_layers, struct kv_runs runs)
{
    const size_t all = kv_store_bytes_for(backend, layers, n_layers),
                 windows = runs.window > 0 ? kv_store_window_bytes_for(backend, layers, n_layers) : 0,
                 slot = runs.slot > 0 ? state_store_bytes_for(backend, states, n_layers) : 0;
    size_t block = all - windows;
    if (windows > 0 && run_of(windows, runs.window) > block) block = run_of(windows, runs.window);
    if (slot > 0 && run_of(slot, runs.slot) > block) block = run_of(slot, runs.slot);
    return rounded(block, 64);
}

/* Of windowed layers, or of the others: each block with all of its layers. */
static void lay_out_shared(struct kv_store *kv, const struct kv_geometry *layers, size_t block)
{
    size_t at = 0, at_windowed = 0;
    for (uint32_t l = 0; l < kv->n_layers; l++) {
        const size_t slice = slice_bytes(kv->backend, &layers[l]);
        const bool windowed = kv->runs.window > 0 && layers[l].window > 0;
        size_t *offset = windowed ? &at_windowed : &at;
        kv->layers[l] = (struct kv_slices){ kv->memory + *offset, windowed ? block * kv->runs.window : block, layers[l],
                                            windowed, slice };
        kv->held[l] = held_all(layers[l].n_kv_heads);
        *offset += slice;
    }
}

enum status kv_store_create_shared(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                                   const struct state_layer_geometry *states, uint32_t n_layers, struct kv_runs runs,
                                   uint32_t n_blocks, struct error *err)
{
    const size_t block = kv_store_shared_bytes_for(backend, layers, states, n_layers, runs);
    uint64_t bytes;
    struct kv_store *kv;
    if (n_blocks == 0) return error_set(err, ERR_INVALID, "KV memory for 0 blocks");
    enum status st = count_bytes(&bytes, block, n_blocks, 0, 0, err);
    if (st == OK) st = create(&kv, backend, n_layers, n_blocks, block, bytes, err);
    if (st != OK) return st;
    kv->runs = runs;
    if (runs.window > 0 && kv_store_window_bytes_for(backend, layers, n_layers) > 0)
        kv->n_window_blocks = n_blocks / runs.window;
    lay_out_shared(kv, layers, block);
    if (runs.slot > 0 && state_store_bytes_for(backend, states, n_layers) > 0)
        st = state_store_create_in(&kv->states, backend, states, n_layers, n_blocks / runs.slot, kv->memory,
                                   block * runs.slot, err);
    if (st == OK)
        *out = kv;
    else
        kv_store_destroy(kv);
    return st;
}

enum status kv_store_create(struct kv_store **out, struct backend *backend, const struct kv_geometry *layers,
                            uint32_t n_layers, uint32_t n_blocks, struct error *err)
{
    return kv_store_create_windowed(out, backend, layers, n_layers, n_blocks, 0, err);
}

void kv_store_destroy(struct kv_store *kv)
{
    for (struct kv_store *next; kv; kv = next) {
        next = kv->next;
        state_store_destroy(kv->states);
        kv->backend->ops->release(kv->backend, kv->memory, kv->bytes);
        mem_free(kv->held);
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
        for (uint32_t l = 0; l < kv->n_layers; l++) bytes += kv->layers[l].windowed ? 0 : kv->layers[l].slice_bytes;
    return bytes;
}

enum status kv_store_read_block(const struct kv_store *kv, uint32_t block, uint8_t *dst)
{
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        struct backend *be = kv->backend;
        for (uint32_t l = 0; l < kv->n_layers; l++) {
            const struct kv_slices *s = &kv->layers[l];
            if (s->windowed) continue;
            st = be->ops->download(be, NULL, dst, s->base + block * s->stride, s->slice_bytes);
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
            if (s->windowed) continue;
            st = be->ops->upload(be, NULL, s->base + block * s->stride, src, s->slice_bytes);
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
            if (s->windowed) continue;
            st = be->ops->copy(be, NULL, s->base + to * s->stride, s->base + from * s->stride, s->slice_bytes);
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

/* ---- blocks of windowed layers ---- */

size_t kv_store_window_bytes(const struct kv_store *kv)
{
    size_t bytes = 0;
    for (; kv; kv = kv->next)
        for (uint32_t l = 0; l < kv->n_layers; l++) bytes += kv->layers[l].windowed ? kv->layers[l].slice_bytes : 0;
    return bytes;
}

uint32_t kv_store_n_window_blocks(const struct kv_store *kv)
{
    while (kv && kv->n_window_blocks == 0) kv = kv->next;
    return kv ? kv->n_window_blocks : 0;
}

uint32_t kv_store_window(const struct kv_store *kv)
{
    uint32_t most = 0;
    for (; kv; kv = kv->next)
        for (uint32_t l = 0; l < kv->n_layers; l++) {
            const struct kv_slices *s = &kv->layers[l];
            if (s->windowed && s->geom.window > most) most = s->geom.window;
        }
    return most;
}

/* A range of bytes on its way; one of `dst` and `src` is NULL. */
struct range {
    size_t at, n, done;
    uint8_t *dst;
    const uint8_t *src;
};

/* What a slice, the bytes [begin, begin + slice_bytes) of all, has of it. */
static enum status move_slice(struct backend *be, const struct kv_slices *s, uint32_t block, size_t begin,
                              struct range *r)
{
    const size_t end = begin + s->slice_bytes, from = r->at + r->done, left = r->n - r->done;
    if (left == 0 || from >= end) return OK;
    const size_t n = left < end - from ? left : end - from;
    uint8_t *bytes = s->base + block * s->stride + (from - begin);
    enum status st = r->dst ? be->ops->download(be, NULL, r->dst + r->done, bytes, n)
                            : be->ops->upload(be, NULL, bytes, r->src + r->done, n);
    r->done += n;
    return st;
}

static enum status move_window(const struct kv_store *kv, uint32_t block, struct range r)
{
    size_t begin = 0;
    enum status st = OK;
    for (; kv && st == OK; kv = kv->next) {
        for (uint32_t l = 0; l < kv->n_layers && st == OK; l++) {
            if (!kv->layers[l].windowed) continue;
            st = move_slice(kv->backend, &kv->layers[l], block, begin, &r);
            begin += kv->layers[l].slice_bytes;
        }
        if (st == OK) st = kv->backend->ops->sync(kv->backend, NULL);
    }
    return st == OK && r.done < r.n ? ERR_INVALID : st;
}

enum status kv_store_read_window(const struct kv_store *kv, uint32_t block, size_t at, size_t n, uint8_t *dst)
{
    return move_window(kv, block, (struct range){ .at = at, .n = n, .dst = dst });
}

enum status kv_store_write_window(const struct kv_store *kv, uint32_t block, size_t at, size_t n, const uint8_t *src)
{
    return move_window(kv, block, (struct range){ .at = at, .n = n, .src = src });
}
