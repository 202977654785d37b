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

/* What a place holds begins at byte `at` of one of the sequence's things: a block is one place; windows' blocks and
 * the state follow, each from a place of its own on. */
struct thing {
    enum { BLOCK, WINDOW_BLOCK, STATE } kind;
    uint32_t id;
    size_t at, n;
};

static uint32_t places_for(const struct swap *sw, size_t bytes)
{
    return (uint32_t)((bytes + sw->place_bytes - 1) / sw->place_bytes);
}

static size_t window_bytes(const struct swap *sw)
{
    return kv_store_window_bytes(sw->kv);
}

/* Which thing is in place i of a run. */
static struct thing thing_at(const struct swap *sw, const struct swap_things *t, uint32_t i)
{
    struct thing what = { .kind = BLOCK, .id = i < t->n_blocks ? t->blocks[i] : 0, .n = sw->place_bytes };
    if (i < t->n_blocks) return what;
    const uint32_t per_window = places_for(sw, window_bytes(sw)), k = i - t->n_blocks;
    const bool is_window = k < t->n_window_blocks * per_window;
    const size_t all = is_window ? window_bytes(sw) : kv_store_state_bytes(sw->kv);
    what.kind = is_window ? WINDOW_BLOCK : STATE;
    what.id = is_window ? t->window_blocks[k / per_window] : t->slot;
    what.at = (is_window ? k % per_window : k - t->n_window_blocks * per_window) * sw->place_bytes;
    what.n = all - what.at < sw->place_bytes ? all - what.at : sw->place_bytes;
    return what;
}

static enum status copy_thing(const struct swap *sw, const struct thing *t, uint8_t *place, bool is_out)
{
    const struct kv_store *kv = sw->kv;
    switch (t->kind) {
    case BLOCK: return is_out ? kv_store_read_block(kv, t->id, place) : kv_store_write_block(kv, t->id, place);
    case WINDOW_BLOCK:
        return is_out ? kv_store_read_window(kv, t->id, t->at, t->n, place)
                      : kv_store_write_window(kv, t->id, t->at, t->n, place);
    default:
        return is_out ? kv_store_read_state(kv, t->id, t->at, t->n, place)
                      : kv_store_write_state(kv, t->id, t->at, t->n, place);
    }
}

static enum status copy_run(const struct swap *sw, const struct swap_run *run, const struct swap_things *things,
                            bool is_out)
{
    enum status st = OK;
    uint32_t place = run->head;
    for (uint32_t i = 0; i < run->n && st == OK; i++, place = sw->next[place]) {
        const struct thing t = thing_at(sw, things, i);
        st = copy_thing(sw, &t, sw->arena + place * sw->place_bytes, is_out);
    }
    return st;
}

static uint64_t places_of(const struct swap *sw, const struct swap_things *t)
{
    const size_t state = t->slot == STATE_SLOT_NONE ? 0 : kv_store_state_bytes(sw->kv);
    return t->n_blocks + (uint64_t)t->n_window_blocks * places_for(sw, window_bytes(sw)) + places_for(sw, state);
}

enum status swap_out(struct swap *sw, const struct swap_things *things, struct swap_run *run)
{
    const uint64_t all = places_of(sw, things);
    assert(run->n == 0);
    if (things->n_blocks == 0 || all > sw->n_places - sw->n_used) return ERR_FULL;
    /* The first of the free chain are the run: only its end has to be remembered. */
    *run = (struct swap_run){ sw->free, (uint32_t)all };
    for (uint32_t i = 0; i < run->n; i++) sw->free = sw->next[sw->free];
    sw->n_used += run->n;
    enum status st = copy_run(sw, run, things, true);
    if (st != OK) swap_drop(sw, run);
    return st;
}

enum status swap_in(struct swap *sw, const struct swap_things *things, struct swap_run *run)
{
    assert(places_of(sw, things) == run->n && "as many as went out");
    enum status st = copy_run(sw, run, things, false);
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
