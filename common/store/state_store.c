/* state_store.c - the bytes behind state slots: one run of slots per layer and part, in backend memory. */
#include "store/state_store.h"

#include "base/bytes.h"
#include "base/host_memory.h"
#include "base/mem.h"

#include <assert.h>
#include <stdio.h>

static size_t part_bytes(struct backend *backend, const struct state_geometry *g)
{
    return g->n_heads > 0 ? backend->ops->state_slot_bytes(backend, g) : 0;
}

size_t state_store_bytes_for(struct backend *backend, const struct state_layer_geometry *layers, uint32_t n_layers)
{
    size_t bytes = 0;
    for (uint32_t l = 0; l < n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) bytes += part_bytes(backend, &layers[l].parts[p]);
    return bytes;
}

static enum status check_kernels(struct backend *backend, const struct state_layer_geometry *layers, uint32_t n_layers,
                                 struct error *err)
{
    for (uint32_t l = 0; l < n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const struct state_geometry *g = &layers[l].parts[p];
            if (g->n_heads > 0 && part_bytes(backend, g) == 0)
                return error_set(err, ERR_UNSUPPORTED,
                                 "layer %u has states of %u heads of %u x %u, for which the %s backend has no kernels",
                                 l, g->n_heads, g->rows, g->cols, backend->ops->name);
        }
    return OK;
}

/* In a memory of their own (stride 0) each part's slots follow each other, elsewhere each slot's parts. */
static void lay_out(struct state_store *s, const struct state_layer_geometry *layers, uint8_t *at, size_t stride)
{
    s->layers = mem_array(s->n_layers, sizeof(*s->layers));
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const size_t slot = part_bytes(s->backend, &layers[l].parts[p]);
            const struct held *held = &layers[l].held[p];
            s->layers[l].parts[p] = (struct state_slices){ at, stride > 0 ? stride : slot, layers[l].parts[p], slot };
            s->layers[l].held[p] = held->n_runs > 0 ? *held : held_all(layers[l].parts[p].n_heads);
            at += stride > 0 ? slot : slot * s->n_slots;
        }
}

enum status state_store_create(struct state_store **out, struct backend *backend,
                               const struct state_layer_geometry *layers, uint32_t n_layers, uint32_t n_slots,
                               struct error *err)
{
    uint64_t bytes;
    char what[96];
    void *memory = NULL;
    enum status st = check_kernels(backend, layers, n_layers, err);
    if (st != OK) return st;
    const size_t slot = state_store_bytes_for(backend, layers, n_layers);
    snprintf(what, sizeof(what), "%u recurrent states of %zu bytes", n_slots, slot);
    if (n_slots == 0 || slot == 0) return error_set(err, ERR_INVALID, "memory for %s", what);
    if (!size_mul(slot, n_slots, &bytes) || bytes > PTRDIFF_MAX)
        return error_set(err, ERR_TOO_LARGE, "%s do not fit an address space", what);
    if (backend->caps.host_memory && (st = host_memory_check(bytes, what, err)) != OK) return st;
    if ((st = backend->ops->alloc(backend, (size_t)bytes, &memory)) != OK)
        return error_set(err, st, "%s: the %s backend cannot give %llu bytes", what, backend->ops->name,
                         (unsigned long long)bytes);
    struct state_store *s = mem_zalloc(sizeof(*s));
    *s = (struct state_store){ n_layers, n_slots, NULL, memory, (size_t)bytes, slot, backend };
    lay_out(s, layers, s->memory, 0);
    *out = s;
    return OK;
}

enum status state_store_create_in(struct state_store **out, struct backend *backend,
                                  const struct state_layer_geometry *layers, uint32_t n_layers, uint32_t n_slots,
                                  uint8_t *memory, size_t stride, struct error *err)
{
    enum status st = check_kernels(backend, layers, n_layers, err);
    if (st != OK) return st;
    const size_t slot = state_store_bytes_for(backend, layers, n_layers);
    assert(n_slots > 0 && slot > 0 && slot <= stride);
    struct state_store *s = mem_zalloc(sizeof(*s));
    *s = (struct state_store){ n_layers, n_slots, NULL, NULL, 0, slot, backend };
    lay_out(s, layers, memory, stride);
    *out = s;
    return OK;
}

void state_store_destroy(struct state_store *s)
{
    if (!s) return;
    if (s->memory) s->backend->ops->release(s->backend, s->memory, s->bytes);
    mem_free(s->layers);
    mem_free(s);
}

enum status state_store_copy(const struct state_store *s, uint32_t from, uint32_t to)
{
    struct backend *be = s->backend;
    for (uint32_t l = 0; l < s->n_layers; l++)
        for (int p = 0; p < STATE_PARTS; p++) {
            const struct state_slices *part = &s->layers[l].parts[p];
            enum status st = part->slot_bytes > 0 ? be->ops->state_copy(be, NULL, part, from, to) : OK;
            if (st != OK) return st;
        }
    return be->ops->sync(be, NULL);
}

/* One of `dst` and `src` is NULL. */
static enum status move(const struct state_store *s, uint32_t slot, size_t at, size_t n, uint8_t *dst,
                        const uint8_t *src)
{
    struct backend *be = s->backend;
    size_t begin = 0, done = 0;
    for (uint32_t i = 0; i < s->n_layers * STATE_PARTS && done < n; i++) {
        const struct state_slices *part = &s->layers[i / STATE_PARTS].parts[i % STATE_PARTS];
        const size_t end = begin + part->slot_bytes, from = at + done;
        if (from < end) {
            uint8_t *bytes = part->base + slot * part->stride + (from - begin);
            const size_t k = n - done < end - from ? n - done : end - from;
            enum status st = dst ? be->ops->download(be, NULL, dst + done, bytes, k)
                                 : be->ops->upload(be, NULL, bytes, src + done, k);
            if (st != OK) return st;
            done += k;
        }
        begin = end;
    }
    return done == n ? be->ops->sync(be, NULL) : ERR_INVALID;
}

enum status state_store_read(const struct state_store *s, uint32_t slot, size_t at, size_t n, uint8_t *dst)
{
    return move(s, slot, at, n, dst, NULL);
}

enum status state_store_write(const struct state_store *s, uint32_t slot, size_t at, size_t n, const uint8_t *src)
{
    return move(s, slot, at, n, NULL, src);
}
