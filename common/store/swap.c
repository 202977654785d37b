/* swap.c - copies blocks between the KV store and chained slots of a host arena. */
#include "store/swap.h"

#include "base/host_memory.h"
#include "base/mem.h"
#include "store/kv_store.h"

#include <assert.h>

struct swap {
    const struct kv_store *kv; /* borrowed */
    uint8_t *arena;            /* owned, mapped; slot i at i * block_bytes */
    size_t arena_bytes, block_bytes;
    uint32_t *next; /* owned; chains of runs, and of the free slots */
    uint32_t n_slots, n_used, free;
};

static enum status check_fits(const struct kv_store *kv, uint64_t bytes, struct error *err)
{
    struct host_memory left;
    host_memory_left(&left);
    return host_memory_fit(&left, "kv.swap_bytes", bytes, "KV pool", kv->backend->caps.host_memory ? kv->bytes : 0,
                           err);
}

enum status swap_create(struct swap **out, const struct kv_store *kv, uint64_t bytes, struct error *err)
{
    struct swap *sw = mem_zalloc(sizeof(*sw));
    enum status st = OK;
    void *arena = NULL;
    sw->kv = kv;
    sw->block_bytes = kv_store_block_bytes(kv);
    uint64_t n = bytes / sw->block_bytes;
    sw->n_slots = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    sw->arena_bytes = sw->n_slots * sw->block_bytes;
    if (bytes > 0 && n == 0)
        st = error_set(err, ERR_INVALID, "kv.swap_bytes: %llu bytes hold no KV block of %zu bytes (0 turns swap off)",
                       (unsigned long long)bytes, sw->block_bytes);
    if (st == OK && n > 0) st = check_fits(kv, sw->arena_bytes, err);
    if (st == OK && n > 0 && (st = mem_try_map(&arena, sw->arena_bytes)) != OK)
        error_set(err, st, "kv.swap_bytes: the system does not give %zu bytes", sw->arena_bytes);
    if (st != OK) {
        mem_free(sw);
        return st;
    }
    sw->arena = arena;
    sw->next = mem_array(sw->n_slots, sizeof(*sw->next));
    for (uint32_t i = 0; i < sw->n_slots; i++) sw->next[i] = i + 1;
    *out = sw;
    return OK;
}

void swap_destroy(struct swap *sw)
{
    if (!sw) return;
    assert(sw->n_used == 0 && "a swapped sequence outlives its arena");
    if (sw->arena) mem_unmap(sw->arena, sw->arena_bytes);
    mem_free(sw->next);
    mem_free(sw);
}

static enum status copy_run(const struct swap *sw, const struct swap_run *run, const kv_block_id *blocks, bool is_out)
{
    uint32_t slot = run->head;
    for (uint32_t i = 0; i < run->n; i++, slot = sw->next[slot]) {
        uint8_t *at = sw->arena + slot * sw->block_bytes;
        enum status st =
            is_out ? kv_store_read_block(sw->kv, blocks[i], at) : kv_store_write_block(sw->kv, blocks[i], at);
        if (st != OK) return st;
    }
    return OK;
}

enum status swap_out(struct swap *sw, const kv_block_id *blocks, uint32_t n, struct swap_run *run)
{
    assert(run->n == 0);
    if (n == 0 || n > sw->n_slots - sw->n_used) return ERR_FULL;
    /* The first n of the free chain are the run: only its end has to be remembered. */
    *run = (struct swap_run){ sw->free, n };
    for (uint32_t i = 0; i < n; i++) sw->free = sw->next[sw->free];
    sw->n_used += n;
    enum status st = copy_run(sw, run, blocks, true);
    if (st != OK) swap_drop(sw, run);
    return st;
}

enum status swap_in(struct swap *sw, const kv_block_id *blocks, struct swap_run *run)
{
    enum status st = copy_run(sw, run, blocks, false);
    swap_drop(sw, run);
    return st;
}

void swap_drop(struct swap *sw, struct swap_run *run)
{
    if (run->n == 0) return;
    uint32_t last = run->head;
    for (uint32_t i = 1; i < run->n; i++) last = sw->next[last];
    sw->next[last] = sw->free;
    sw->free = run->head;
    sw->n_used -= run->n;
    *run = (struct swap_run){ 0 };
}

uint32_t swap_n_used(const struct swap *sw)
{
    return sw->n_used;
}
