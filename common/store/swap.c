/* swap.c - copies blocks and states between the KV store and chained places of a host arena. */
#include "store/swap.h"

#include "base/host_memory.h"
#include "base/mem.h"
#include "store/kv_store.h"

#include <assert.h>

#define PLACE_BYTES ((size_t)64 << 10) /* of a model whose blocks have no bytes */

struct swap {
    const struct kv_store *kv; /* borrowed */
    uint8_t *arena;            /* owned, mapped; place i at i * place_bytes */
    size_t arena_bytes, place_bytes;
    uint32_t *next; /* owned; chains of runs, and of the free places */
    uint32_t n_places, n_used, free;
};

static enum status check_fits(const struct kv_store *kv, uint64_t bytes, struct error *err)
{
    struct host_memory left;
    host_memory_left(&left);
    return host_memory_fit(&left, "kv.swap_bytes", bytes, "KV pool", kv_store_host_bytes(kv), err);
}

enum status swap_create(struct swap **out, const struct kv_store *kv, uint64_t bytes, struct error *err)
{
    struct swap *sw = mem_zalloc(sizeof(*sw));
    enum status st = OK;
    void *arena = NULL;
    sw->kv = kv;
    sw->place_bytes = kv_store_block_bytes(kv);
    if (sw->place_bytes == 0) sw->place_bytes = PLACE_BYTES;
    uint64_t n = bytes / sw->place_bytes;
    sw->n_places = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    sw->arena_bytes = sw->n_places * sw->place_bytes;
    if (bytes > 0 && n == 0)
        st = error_set(err, ERR_INVALID, "kv.swap_bytes: %llu bytes hold no KV block of %zu bytes (0 turns swap off)",
                       (unsigned long long)bytes, sw->place_bytes);
    if (st == OK && n > 0) st = check_fits(kv, sw->arena_bytes, err);
    if (st == OK && n > 0 && (st = mem_try_map(&arena, sw->arena_bytes)) != OK)
        error_set(err, st, "kv.swap_bytes: the system does not give %zu bytes", sw->arena_bytes);
    if (st != OK) {
        mem_free(sw);
        return st;
    }
    sw->arena = arena;
    sw->next = mem_array(sw->n_places, sizeof(*sw->next));
    for (uint32_t i = 0; i < sw->n_places; i++) sw->next[i] = i + 1;
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

/* Part i of a state in places. */
static enum status copy_state(const struct swap *sw, state_slot_id slot, uint32_t i, uint8_t *at, bool is_out)
{
    const size_t from = i * sw->place_bytes, left = kv_store_state_bytes(sw->kv) - from;
    const size_t n = left < sw->place_bytes ? left : sw->place_bytes;
    return is_out ? kv_store_read_state(sw->kv, slot, from, n, at) : kv_store_write_state(sw->kv, slot, from, n, at);
}

static enum status copy_run(const struct swap *sw, const struct swap_run *run, const kv_block_id *blocks,
                            state_slot_id slot, bool is_out)
{
    enum status st = OK;
    uint32_t place = run->head;
    for (uint32_t i = 0; i < run->n && st == OK; i++, place = sw->next[place]) {
        uint8_t *at = sw->arena + place * sw->place_bytes;
        if (i >= run->n_blocks)
            st = copy_state(sw, slot, i - run->n_blocks, at, is_out);
        else
            st = is_out ? kv_store_read_block(sw->kv, blocks[i], at) : kv_store_write_block(sw->kv, blocks[i], at);
    }
    return st;
}

/* Places that the state takes. */
static uint32_t places_of(const struct swap *sw, state_slot_id slot)
{
    if (slot == STATE_SLOT_NONE) return 0;
    return (uint32_t)((kv_store_state_bytes(sw->kv) + sw->place_bytes - 1) / sw->place_bytes);
}

enum status swap_out(struct swap *sw, const kv_block_id *blocks, uint32_t n, state_slot_id slot, struct swap_run *run)
{
    const uint64_t all = (uint64_t)n + places_of(sw, slot);
    assert(run->n == 0);
    if (n == 0 || all > sw->n_places - sw->n_used) return ERR_FULL;
    /* The first of the free chain are the run: only its end has to be remembered. */
    *run = (struct swap_run){ sw->free, (uint32_t)all, n };
    for (uint32_t i = 0; i < run->n; i++) sw->free = sw->next[sw->free];
    sw->n_used += run->n;
    enum status st = copy_run(sw, run, blocks, slot, true);
    if (st != OK) swap_drop(sw, run);
    return st;
}

enum status swap_in(struct swap *sw, const kv_block_id *blocks, state_slot_id slot, struct swap_run *run)
{
    enum status st = copy_run(sw, run, blocks, slot, false);
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
