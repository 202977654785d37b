/* kv_tier_disk.c - a file without a name, a bounded queue of blocks to write, and reads that must pay. */
#include "store/kv_tier_disk.h"

#include "base/ewma.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/worker.h"
#include "kv/hash_lru.h"
#include "store/kv_tier_read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MIB  (1024.0 * 1024.0)
#define FADE 0.9

struct job {
    uint8_t *buffer;
    uint32_t slot;
};

struct kv_tier_disk {
    int fd;
    size_t block_bytes;
    ssize_t (*write)(int fd, const void *p, size_t n, off_t at);
    struct kv_tier_counters *counters; /* borrowed */
    /* The engine's thread alone. */
    struct hash_lru lru;
    uint64_t *sums; /* [n_slots] */
    struct kv_tier_reads *reads;
    uint8_t *copy_buffer;
    double read_us; /* of one block, moving average; 0: not measured */
    /* The writer's too, under the lock. */
    struct worker writer;
    struct job *queue; /* [max_queued], a ring; the first one is being written */
    uint32_t head, n_queued, max_queued;
    uint8_t **spare;   /* [max_queued - n_queued] */
    atomic_bool is_on; /* false after a write error, for good */
};

bool kv_tier_disk_pays(double read_us, double compute_us)
{
    return read_us <= 0 || compute_us <= 0 || read_us < compute_us;
}

/* All of a block, or an errno. */
static int write_block(const struct kv_tier_disk *d, const uint8_t *p, uint32_t slot)
{
    off_t at = (off_t)slot * (off_t)d->block_bytes;
    for (size_t n = d->block_bytes; n > 0;) {
        ssize_t k = d->write(d->fd, p, n, at);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return k < 0 ? errno : EIO;
        p += k;
        at += k;
        n -= (size_t)k;
    }
    return 0;
}

/* The first job is over; its buffer is spare again.  Under the lock. */
static void pop(struct kv_tier_disk *d)
{
    d->spare[d->max_queued - d->n_queued] = d->queue[d->head].buffer;
    d->head = (d->head + 1) % d->max_queued;
    d->n_queued--;
}

static void turn_off(struct kv_tier_disk *d, int why)
{
    log_error("kv_tier_disk_off", "reason=%s", log_quote(strerror(why)));
    atomic_store(&d->is_on, false);
    atomic_store_explicit(&d->counters->blocks[KV_TIER_DISK], 0, memory_order_relaxed);
}

static bool write_next(void *arg)
{
    struct kv_tier_disk *d = arg;
    if (d->n_queued == 0) return false;
    const struct job job = d->queue[d->head];
    worker_unlock(&d->writer);
    int bad = atomic_load(&d->is_on) ? write_block(d, job.buffer, job.slot) : EIO;
    if (bad && atomic_load(&d->is_on)) turn_off(d, bad);
    if (bad) kv_tier_drop(d->counters, KV_TIER_WRITE_ERROR);
    worker_lock(&d->writer);
    pop(d);
    return true;
}

static enum status open_file(struct kv_tier_disk *d, const struct kv_tier_options *opt, uint64_t bytes,
                             struct error *err)
{
    char path[4096];
    struct statvfs fs;
    if (snprintf(path, sizeof(path), "%s/baton-kv-XXXXXX", opt->path) >= (int)sizeof(path))
        return error_set(err, ERR_INVALID, "kv.tier_path is longer than %zu characters", sizeof(path));
    if ((d->fd = mkostemp(path, O_CLOEXEC)) < 0)
        return error_set(err, ERR_IO, "kv.tier_path %s: cannot make a file there: %s", opt->path, strerror(errno));
    unlink(path);
    uint64_t left = fstatvfs(d->fd, &fs) == 0 ? (uint64_t)fs.f_bavail * fs.f_frsize : UINT64_MAX;
    if (opt->disk_bytes > left)
        return error_set(err, ERR_IO, "kv.tier_disk_bytes: %.1f MiB do not fit %s, %.1f MiB are free there",
                         (double)opt->disk_bytes / MIB, opt->path, (double)left / MIB);
    int bad = posix_fallocate(d->fd, 0, (off_t)bytes);
    if (bad)
        return error_set(err, ERR_IO, "kv.tier_disk_bytes: %s does not give a file of %.1f MiB: %s", opt->path,
                         (double)bytes / MIB, strerror(bad));
    return OK;
}

static enum status start(struct kv_tier_disk *d, const struct kv_tier_options *opt, struct error *err)
{
    const uint64_t fit = opt->disk_bytes / d->block_bytes;
    const uint32_t n = fit < UINT32_MAX / 2 ? (uint32_t)fit : UINT32_MAX / 2;
    if (n <= d->max_queued)
        return error_set(
            err, ERR_INVALID, "kv.tier_disk_bytes: %llu bytes hold %llu KV blocks of %zu bytes, at least %u are needed",
            (unsigned long long)opt->disk_bytes, (unsigned long long)fit, d->block_bytes, d->max_queued + 1);
    enum status st = open_file(d, opt, (uint64_t)n * d->block_bytes, err);
    if (st != OK) return st;
    if ((st = hash_lru_init(&d->lru, n)) != OK)
        return error_set(err, st, "kv.tier_disk_bytes: no memory to find %u blocks in", n);
    d->sums = mem_array(n, sizeof(*d->sums));
    if ((st = kv_tier_reads_create(&d->reads, d->fd, opt, d->block_bytes, err)) != OK) return st;
    if ((st = worker_start(&d->writer, "kv-tier", write_next, d)) != OK)
        return error_set(err, st, "kv.tier_path: cannot start a thread that writes");
    return OK;
}

enum status kv_tier_disk_create(struct kv_tier_disk **out, const struct kv_tier_options *opt, size_t block_bytes,
                                uint8_t *buffers, uint32_t n_queue, struct kv_tier_counters *counters,
                                struct error *err)
{
    struct kv_tier_disk *d = mem_zalloc(sizeof(*d));
    d->fd = -1;
    d->block_bytes = block_bytes;
    d->write = opt->io ? opt->io->write : pwrite;
    d->counters = counters;
    d->max_queued = n_queue;
    d->queue = mem_array(n_queue, sizeof(*d->queue));
    d->spare = mem_array(n_queue, sizeof(*d->spare));
    for (uint32_t i = 0; i < n_queue; i++) d->spare[i] = buffers + i * block_bytes;
    d->copy_buffer = buffers + n_queue * block_bytes;
    worker_init(&d->writer);
    atomic_store(&d->is_on, true);
    enum status st = start(d, opt, err);
    if (st != OK) {
        kv_tier_disk_destroy(d);
        return st;
    }
    *out = d;
    return OK;
}

void kv_tier_disk_destroy(struct kv_tier_disk *d)
{
    if (!d) return;
    worker_fini(&d->writer);
    kv_tier_reads_destroy(d->reads);
    if (d->fd >= 0) close(d->fd);
    hash_lru_fini(&d->lru);
    mem_free(d->queue);
    mem_free(d->spare);
    mem_free(d->sums);
    mem_free(d);
}

/* The buffer of a slot that is still to be written, or NULL.  Under the lock. */
static const uint8_t *queued(const struct kv_tier_disk *d, uint32_t slot)
{
    for (uint32_t i = 0; i < d->n_queued; i++) {
        const struct job *j = &d->queue[(d->head + i) % d->max_queued];
        if (j->slot == slot) return j->buffer;
    }
    return NULL;
}

static void remove_slot(struct kv_tier_disk *d, uint32_t slot)
{
    hash_lru_remove(&d->lru, slot);
    atomic_store_explicit(&d->counters->blocks[KV_TIER_DISK], d->lru.n_used, memory_order_relaxed);
}

/* A slot for `hash`, or HASH_LRU_NONE if the one in the way is still to be written.  Under the lock. */
static uint32_t take_slot(struct kv_tier_disk *d, const struct prefix_hash *hash)
{
    uint32_t oldest = hash_lru_in_the_way(&d->lru);
    if (oldest != HASH_LRU_NONE && queued(d, oldest)) return HASH_LRU_NONE;
    if (oldest != HASH_LRU_NONE) {
        kv_tier_drop(d->counters, KV_TIER_NO_ROOM);
        hash_lru_remove(&d->lru, oldest);
    }
    return hash_lru_add(&d->lru, hash);
}

/* The queue is full: the first block that is not being written yet goes.  Leaves come first, and what follows in a
 * burst can do without them, but not they without it.  Under the lock. */
static void drop_first(struct kv_tier_disk *d)
{
    const uint32_t second = (d->head + 1) % d->max_queued;
    const struct job lost = d->queue[second];
    d->queue[second] = d->queue[d->head];
    d->spare[d->max_queued - d->n_queued] = lost.buffer;
    d->head = second;
    d->n_queued--;
    hash_lru_remove(&d->lru, lost.slot);
    kv_tier_drop(d->counters, KV_TIER_QUEUE_FULL);
}

bool kv_tier_disk_put(struct kv_tier_disk *d, const struct prefix_hash *hash, uint64_t sum, uint8_t **buffer)
{
    if (!atomic_load(&d->is_on)) {
        atomic_store_explicit(&d->counters->blocks[KV_TIER_DISK], 0, memory_order_relaxed);
        kv_tier_drop(d->counters, KV_TIER_NO_ROOM);
        return false;
    }
    uint32_t slot = hash_lru_find(&d->lru, hash);
    if (slot != HASH_LRU_NONE) {
        hash_lru_touch(&d->lru, slot);
        return false;
    }
    worker_lock(&d->writer);
    slot = take_slot(d, hash);
    if (slot != HASH_LRU_NONE && d->n_queued == d->max_queued) drop_first(d);
    if (slot != HASH_LRU_NONE) {
        d->sums[slot] = sum;
        d->queue[(d->head + d->n_queued) % d->max_queued] = (struct job){ *buffer, slot };
        d->n_queued++;
        *buffer = d->spare[d->max_queued - d->n_queued];
        worker_wake(&d->writer);
    }
    worker_unlock(&d->writer);
    if (slot == HASH_LRU_NONE)
        kv_tier_drop(d->counters, KV_TIER_QUEUE_FULL);
    else
        atomic_store_explicit(&d->counters->blocks[KV_TIER_DISK], d->lru.n_used, memory_order_relaxed);
    return slot != HASH_LRU_NONE;
}

void kv_tier_disk_touch(struct kv_tier_disk *d, const struct prefix_hash *hash)
{
    uint32_t slot = hash_lru_find(&d->lru, hash);
    if (slot != HASH_LRU_NONE) hash_lru_touch(&d->lru, slot);
}

bool kv_tier_disk_has(struct kv_tier_disk *d, const struct prefix_hash *hash)
{
    return atomic_load(&d->is_on) && hash_lru_find(&d->lru, hash) != HASH_LRU_NONE;
}

/* What is not written yet is copied from the queue: its buffer may be spare as soon as the lock is free. */
static bool copy_queued(struct kv_tier_disk *d, uint32_t slot)
{
    worker_lock(&d->writer);
    const uint8_t *waiting = queued(d, slot);
    if (waiting) memcpy(d->copy_buffer, waiting, d->block_bytes);
    worker_unlock(&d->writer);
    return waiting != NULL;
}

static bool pays(struct kv_tier_disk *d, double compute_us)
{
    bool yes = kv_tier_disk_pays(d->read_us, compute_us);
    if (!yes) d->read_us *= FADE; /* so that a disk that was slow for a while is tried again */
    return yes;
}

static enum kv_tier_found lose(struct kv_tier_disk *d, uint32_t slot, enum kv_tier_drop why)
{
    kv_tier_reads_drop(d->reads, slot, d->sums[slot]);
    if (!atomic_load(&d->is_on)) return KV_TIER_MISS; /* failed meanwhile, and has said so */
    if (why == KV_TIER_CORRUPT) log_error("kv_tier_corrupt", "level=disk slot=%u", slot);
    kv_tier_drop(d->counters, why);
    remove_slot(d, slot);
    return KV_TIER_MISS;
}

enum kv_tier_found kv_tier_disk_get(struct kv_tier_disk *d, const struct prefix_hash *hash, double compute_us,
                                    bool may_read, const uint8_t **bytes)
{
    uint32_t slot = atomic_load(&d->is_on) ? hash_lru_find(&d->lru, hash) : HASH_LRU_NONE;
    if (slot == HASH_LRU_NONE) return KV_TIER_MISS;
    if (copy_queued(d, slot)) {
        *bytes = d->copy_buffer;
        return kv_tier_sum(d->copy_buffer, d->block_bytes) == d->sums[slot] ? KV_TIER_FOUND
                                                                            : lose(d, slot, KV_TIER_CORRUPT);
    }
    const struct kv_tier_read read = kv_tier_reads_look(d->reads, slot, d->sums[slot]);
    if (read.us > 0) d->read_us = ewma(d->read_us, read.us);
    *bytes = read.bytes;
    switch (read.state) {
    case KV_READ_DONE: return KV_TIER_FOUND;
    case KV_READ_COMING: return KV_TIER_COMING;
    case KV_READ_FAILED: return lose(d, slot, KV_TIER_READ_ERROR);
    case KV_READ_CORRUPT: return lose(d, slot, KV_TIER_CORRUPT);
    case KV_READ_NONE: break;
    }
    if (!may_read) return KV_TIER_COMING;
    if (!pays(d, compute_us)) return KV_TIER_MISS;
    return kv_tier_reads_ask(d->reads, slot, d->sums[slot]) ? KV_TIER_COMING : KV_TIER_MISS;
}

void kv_tier_disk_used(struct kv_tier_disk *d, const struct prefix_hash *hash)
{
    uint32_t slot = hash_lru_find(&d->lru, hash);
    kv_tier_reads_drop(d->reads, slot, d->sums[slot]);
}

bool kv_tier_disk_ahead(struct kv_tier_disk *d, const struct prefix_hash *hash)
{
    uint32_t slot = atomic_load(&d->is_on) ? hash_lru_find(&d->lru, hash) : HASH_LRU_NONE;
    if (slot == HASH_LRU_NONE) return false;
    worker_lock(&d->writer);
    bool is_queued = queued(d, slot) != NULL;
    worker_unlock(&d->writer);
    if (is_queued || kv_tier_reads_look(d->reads, slot, d->sums[slot]).state != KV_READ_NONE) return true;
    return kv_tier_reads_ask(d->reads, slot, d->sums[slot]);
}

void kv_tier_disk_go(struct kv_tier_disk *d)
{
    kv_tier_reads_go(d->reads);
}

void kv_tier_disk_drop_reads(struct kv_tier_disk *d)
{
    kv_tier_reads_drop_all(d->reads);
}
