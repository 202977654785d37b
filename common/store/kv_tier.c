/* kv_tier.c - the level in RAM: an arena of blocks by hash, least recently used out first. */
#include "store/kv_tier.h"

#include "base/host_memory.h"
#include "base/log.h"
#include "base/mem.h"
#include "kv/hash_lru.h"
#include "store/kv_store.h"
#include "store/kv_tier_disk.h"
#include "store/kv_tier_read.h"

#include <string.h>

struct kv_tier {
    const struct kv_store *kv; /* borrowed */
    uint8_t *arena;            /* owned, mapped */
    size_t arena_bytes, block_bytes;
    struct hash_lru lru;
    uint8_t **buffers; /* [n_slots], into the arena: they change places with the disk's */
    uint64_t *sums;    /* [n_slots] */
    struct kv_tier_disk *disk;
    struct kv_tier_counters counters;
};

/* Sizes that do not go together, or not with this model or this host. */
static enum status check(const struct kv_tier *t, const struct kv_tier_options *opt, struct error *err)
{
    const bool has_path = opt->path && opt->path[0];
    const uint64_t n = opt->ram_bytes / t->block_bytes, least = opt->disk_bytes ? KV_TIER_MIN_QUEUE + 2 : 1;
    const uint64_t pool = kv_store_host_bytes(t->kv), reads = opt->disk_bytes ? kv_tier_reads_bytes(t->block_bytes) : 0;
    struct host_memory left;
    if (has_path != (opt->disk_bytes > 0))
        return error_set(err, ERR_INVALID, "kv.tier_path and kv.tier_disk_bytes: set both or none");
    if (n < least)
        return error_set(err, ERR_INVALID,
                         "kv.tier_bytes: %llu bytes hold %llu KV blocks of %zu bytes, at least %llu are needed%s",
                         (unsigned long long)opt->ram_bytes, (unsigned long long)n, t->block_bytes,
                         (unsigned long long)least, opt->disk_bytes ? " before a disk" : " (0 turns the tier off)");
    host_memory_left(&left);
    return host_memory_fit(&left, "kv.tier_bytes", opt->ram_bytes, "KV pool, swap", pool + opt->other_bytes + reads,
                           err);
}

/* A long prompt pushes many blocks out at once: up to a quarter of the arena holds what is to be written. */
static uint32_t queue_of(uint32_t n, uint64_t n_disk)
{
    uint64_t queue = n / 4 < n_disk ? n / 4 : n_disk - (n_disk > 0);
    return queue < KV_TIER_MIN_QUEUE ? KV_TIER_MIN_QUEUE : (uint32_t)queue;
}

static enum status take_memory(struct kv_tier *t, const struct kv_tier_options *opt, struct error *err)
{
    const uint64_t fit = opt->ram_bytes / t->block_bytes;
    const uint32_t n = fit < UINT32_MAX / 2 ? (uint32_t)fit : UINT32_MAX / 2;
    const uint32_t n_queue = queue_of(n, opt->disk_bytes / t->block_bytes),
                   n_slots = opt->disk_bytes ? n - n_queue - 1 : n;
    void *arena = NULL;
    enum status st = mem_try_map(&arena, n * t->block_bytes);
    if (st != OK) return error_set(err, st, "kv.tier_bytes: the system does not give %zu bytes", n * t->block_bytes);
    t->arena = arena;
    t->arena_bytes = n * t->block_bytes;
    if ((st = hash_lru_init(&t->lru, n_slots)) != OK)
        return error_set(err, st, "kv.tier_bytes: no memory to find %u blocks in", n_slots);
    t->buffers = mem_array(n_slots, sizeof(*t->buffers));
    t->sums = mem_array(n_slots, sizeof(*t->sums));
    for (uint32_t i = 0; i < n_slots; i++) t->buffers[i] = t->arena + i * t->block_bytes;
    if (n_slots == n) return OK;
    return kv_tier_disk_create(&t->disk, opt, t->block_bytes, t->arena + n_slots * t->block_bytes, n_queue,
                               &t->counters, err);
}

enum status kv_tier_create(struct kv_tier **out, const struct kv_store *kv, const struct kv_tier_options *opt,
                           struct error *err)
{
    struct kv_tier *t = mem_zalloc(sizeof(*t));
    t->kv = kv;
    t->block_bytes = kv_store_block_bytes(kv);
    enum status st = check(t, opt, err);
    if (st == OK) st = take_memory(t, opt, err);
    if (st != OK) {
        kv_tier_destroy(t);
        return st;
    }
    *out = t;
    return OK;
}

void kv_tier_destroy(struct kv_tier *t)
{
    if (!t) return;
    kv_tier_disk_destroy(t->disk);
    if (t->arena) mem_unmap(t->arena, t->arena_bytes);
    hash_lru_fini(&t->lru);
    mem_free(t->buffers);
    mem_free(t->sums);
    mem_free(t);
}

static void count_blocks(struct kv_tier *t)
{
    atomic_store_explicit(&t->counters.blocks[KV_TIER_RAM], t->lru.n_used, memory_order_relaxed);
}

static void make_room(struct kv_tier *t)
{
    uint32_t slot = hash_lru_in_the_way(&t->lru);
    if (slot == HASH_LRU_NONE) return;
    if (!t->disk)
        kv_tier_drop(&t->counters, KV_TIER_NO_ROOM);
    else
        (void)kv_tier_disk_put(t->disk, &t->lru.slots[slot].hash, t->sums[slot], &t->buffers[slot]);
    hash_lru_remove(&t->lru, slot);
}

static void touch(struct kv_tier *t, const struct prefix_hash *name)
{
    const uint32_t slot = hash_lru_find(&t->lru, name);
    if (slot != HASH_LRU_NONE) hash_lru_touch(&t->lru, slot);
    if (t->disk) kv_tier_disk_touch(t->disk, name);
}

/* A slot to be filled with what `name` stands for; HASH_LRU_NONE: it is there. */
static uint32_t slot_for(struct kv_tier *t, const struct prefix_hash *name)
{
    const uint32_t slot = hash_lru_find(&t->lru, name);
    if (slot != HASH_LRU_NONE) {
        hash_lru_touch(&t->lru, slot);
        return HASH_LRU_NONE;
    }
    make_room(t);
    return hash_lru_add(&t->lru, name);
}

static void filled(struct kv_tier *t, uint32_t slot, enum status st)
{
    if (st == OK)
        t->sums[slot] = kv_tier_sum(t->buffers[slot], t->block_bytes);
    else
        hash_lru_remove(&t->lru, slot);
    count_blocks(t);
}

void kv_tier_put(struct kv_tier *t, const struct prefix_hash *hash, kv_block_id block)
{
    const uint32_t slot = slot_for(t, hash);
    if (slot != HASH_LRU_NONE) filled(t, slot, kv_store_read_block(t->kv, block, t->buffers[slot]));
}

/* ---- what takes several pieces ---- */

static size_t thing_bytes(const struct kv_tier *t, enum kv_tier_thing thing)
{
    return thing == KV_TIER_STATE ? kv_store_state_bytes(t->kv) : kv_store_window_bytes(t->kv);
}

uint32_t kv_tier_pieces(const struct kv_tier *t, enum kv_tier_thing thing)
{
    return (uint32_t)((thing_bytes(t, thing) + t->block_bytes - 1) / t->block_bytes);
}

static size_t piece_bytes(const struct kv_tier *t, enum kv_tier_thing thing, uint32_t piece)
{
    const size_t left = thing_bytes(t, thing) - piece * t->block_bytes;
    return left < t->block_bytes ? left : t->block_bytes;
}

/* Its own, apart from that of the prefix's last block. */
static struct prefix_hash name_of(enum kv_tier_thing thing, const struct prefix_hash *hash, uint32_t piece)
{
    const uint64_t number = ((uint64_t)piece << 1) + (thing == KV_TIER_STATE) + 1;
    return (struct prefix_hash){ hash->lo + number * 0x9E3779B97F4A7C15u, hash->hi ^ number * 0xC2B2AE3D27D4EB4Fu };
}

static enum status read_piece(const struct kv_tier *t, enum kv_tier_thing thing, uint32_t id, uint32_t piece,
                              uint8_t *dst)
{
    const size_t at = piece * t->block_bytes, n = piece_bytes(t, thing, piece);
    memset(dst + n, 0, t->block_bytes - n);
    return thing == KV_TIER_STATE ? kv_store_read_state(t->kv, id, at, n, dst)
                                  : kv_store_read_window(t->kv, id, at, n, dst);
}

static enum status write_piece(const struct kv_tier *t, enum kv_tier_thing thing, uint32_t id, uint32_t piece,
                               const uint8_t *src)
{
    const size_t at = piece * t->block_bytes, n = piece_bytes(t, thing, piece);
    return thing == KV_TIER_STATE ? kv_store_write_state(t->kv, id, at, n, src)
                                  : kv_store_write_window(t->kv, id, at, n, src);
}

void kv_tier_put_thing(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash, uint32_t id)
{
    const uint32_t n = kv_tier_pieces(t, thing);
    for (uint32_t i = 0; i < n && n <= t->lru.n_slots / 2; i++) {
        const struct prefix_hash name = name_of(thing, hash, i);
        const uint32_t slot = slot_for(t, &name);
        if (slot != HASH_LRU_NONE) filled(t, slot, read_piece(t, thing, id, i, t->buffers[slot]));
    }
}

bool kv_tier_has_thing(const struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash)
{
    const uint32_t n = kv_tier_pieces(t, thing);
    for (uint32_t i = 0; i < n; i++) {
        const struct prefix_hash name = name_of(thing, hash, i);
        const bool in_ram = hash_lru_find(&t->lru, &name) != HASH_LRU_NONE;
        if (!in_ram && !(t->disk && kv_tier_disk_has(t->disk, &name))) return false;
    }
    return true;
}

void kv_tier_touch_thing(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash)
{
    for (uint32_t i = kv_tier_pieces(t, thing); i-- > 0;) {
        const struct prefix_hash name = name_of(thing, hash, i);
        touch(t, &name);
    }
}

void kv_tier_touch(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n)
{
    while (n-- > 0) touch(t, &hashes[n]);
}

/* The bytes in RAM if they are still those that were put there. */
static const uint8_t *ram_get(struct kv_tier *t, uint32_t slot)
{
    if (kv_tier_sum(t->buffers[slot], t->block_bytes) == t->sums[slot]) return t->buffers[slot];
    log_error("kv_tier_corrupt", "level=ram slot=%u", slot);
    kv_tier_drop(&t->counters, KV_TIER_CORRUPT);
    hash_lru_remove(&t->lru, slot);
    count_blocks(t);
    return NULL;
}

/* From the first one on that is neither here nor there, nothing is of use. */
static void read_ahead(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (hash_lru_find(&t->lru, &hashes[i]) == HASH_LRU_NONE && !kv_tier_disk_ahead(t->disk, &hashes[i])) break;
    kv_tier_disk_go(t->disk);
}

/* The bytes that `name` stands for, wherever they are, until used(). */
static enum kv_tier_found look(struct kv_tier *t, const struct prefix_hash *name, double compute_us, bool may_read,
                               enum kv_tier_level *level, const uint8_t **bytes)
{
    const uint32_t slot = hash_lru_find(&t->lru, name);
    *level = slot != HASH_LRU_NONE ? KV_TIER_RAM : KV_TIER_DISK;
    *bytes = slot != HASH_LRU_NONE ? ram_get(t, slot) : NULL;
    if (*level == KV_TIER_DISK && t->disk) return kv_tier_disk_get(t->disk, name, compute_us, may_read, bytes);
    return *bytes ? KV_TIER_FOUND : KV_TIER_MISS;
}

enum kv_tier_found kv_tier_get(struct kv_tier *t, const struct prefix_hash *hashes, uint32_t n, kv_block_id block,
                               double compute_us, bool may_read)
{
    enum kv_tier_level level;
    const uint8_t *bytes;
    enum kv_tier_found found = look(t, hashes, compute_us, may_read, &level, &bytes);
    if (found == KV_TIER_COMING && may_read) read_ahead(t, hashes + 1, n - 1);
    if (found != KV_TIER_FOUND) return found;
    if (kv_store_write_block(t->kv, block, bytes) != OK) found = KV_TIER_MISS;
    if (level == KV_TIER_DISK) kv_tier_disk_used(t->disk, hashes);
    if (found == KV_TIER_FOUND) atomic_fetch_add_explicit(&t->counters.hits[level], 1, memory_order_relaxed);
    return found;
}

enum kv_tier_found kv_tier_get_piece(struct kv_tier *t, enum kv_tier_thing thing, const struct prefix_hash *hash,
                                     uint32_t id, uint32_t piece, double compute_us, bool may_read)
{
    struct prefix_hash names[KV_TIER_MAX_READS];
    const uint32_t left = kv_tier_pieces(t, thing) - piece, n = left < KV_TIER_MAX_READS ? left : KV_TIER_MAX_READS;
    enum kv_tier_level level;
    const uint8_t *bytes;
    for (uint32_t i = 0; i < n; i++) names[i] = name_of(thing, hash, piece + i);
    enum kv_tier_found found = look(t, names, compute_us, may_read, &level, &bytes);
    if (found == KV_TIER_COMING && may_read) read_ahead(t, names + 1, n - 1);
    if (found != KV_TIER_FOUND) return found;
    if (write_piece(t, thing, id, piece, bytes) != OK) found = KV_TIER_MISS;
    if (level == KV_TIER_DISK) kv_tier_disk_used(t->disk, names);
    return found;
}

void kv_tier_drop_reads(struct kv_tier *t)
{
    if (t->disk) kv_tier_disk_drop_reads(t->disk);
}

void kv_tier_stats(const struct kv_tier *t, struct kv_tier_stats *out)
{
    const struct kv_tier_counters *c = &t->counters;
    for (int l = 0; l < KV_TIER_LEVEL_COUNT; l++) {
        out->blocks[l] = atomic_load_explicit(&c->blocks[l], memory_order_relaxed);
        out->hits[l] = atomic_load_explicit(&c->hits[l], memory_order_relaxed);
    }
    for (int r = 0; r < KV_TIER_DROP_COUNT; r++)
        out->dropped[r] = atomic_load_explicit(&c->dropped[r], memory_order_relaxed);
}
