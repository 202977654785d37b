/* kv_tier_read.c - a thread that keeps a few reads under way, in the order in which they were asked for. */
#include "store/kv_tier_read.h"

#include "base/clock.h"
#include "base/io_read.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/worker.h"

enum step { FREE, ASKED, STARTED, OVER };

struct read {
    enum step step;
    bool dropped; /* STARTED: free when it is over */
    uint32_t slot;
    uint64_t sum, ticket, start_us;
    struct kv_tier_read result;
};

struct kv_tier_reads {
    struct io_reader *io; /* the thread's; its slot i is of reads[i] */
    size_t block_bytes;
    void (*on_read)(void *ctx);
    void *ctx;
    /* Both threads', under the lock. */
    struct worker reader;
    struct read reads[KV_TIER_MAX_READS];
    uint64_t last_ticket, last_us; /* when the last one was over */
};

static struct read *oldest(struct kv_tier_reads *r, enum step step)
{
    struct read *found = NULL;
    for (struct read *x = r->reads; x < r->reads + KV_TIER_MAX_READS; x++)
        if (x->step == step && (!found || x->ticket < found->ticket)) found = x;
    return found;
}

static void start_asked(struct kv_tier_reads *r)
{
    for (struct read *x; (x = oldest(r, ASKED));) {
        x->step = STARTED;
        x->start_us = clock_now_us();
        io_reader_start(r->io, (uint32_t)(x - r->reads), 0, (uint64_t)x->slot * r->block_bytes, r->block_bytes);
    }
}

/* Without the lock: only the thread changes a started read, but for `dropped`. */
static void finish(struct kv_tier_reads *r, struct read *x)
{
    struct error err;
    const uint8_t *bytes = NULL;
    enum status st = io_reader_wait(r->io, (uint32_t)(x - r->reads), &bytes, &err);
    x->result = (struct kv_tier_read){ KV_READ_DONE, bytes, 0 };
    if (st != OK) {
        x->result.state = KV_READ_FAILED;
        log_error("kv_tier_read_failed", "slot=%u reason=%s", x->slot, log_quote(err.text));
    } else if (kv_tier_sum(bytes, r->block_bytes) != x->sum) {
        x->result.state = KV_READ_CORRUPT;
    }
}

static void book(struct kv_tier_reads *r, struct read *x)
{
    uint64_t now = clock_now_us(), since = x->start_us > r->last_us ? x->start_us : r->last_us;
    x->result.us = (double)(now - since) + 1;
    r->last_us = now;
    x->step = x->dropped ? FREE : OVER;
}

static bool read_next(void *arg)
{
    struct kv_tier_reads *r = arg;
    start_asked(r);
    struct read *x = oldest(r, STARTED);
    if (!x) return false;
    worker_unlock(&r->reader);
    finish(r, x);
    worker_lock(&r->reader);
    book(r, x);
    if (x->step == OVER && r->on_read) r->on_read(r->ctx);
    return true;
}

uint64_t kv_tier_reads_bytes(size_t block_bytes)
{
    return io_reader_bytes(KV_TIER_MAX_READS, block_bytes);
}

enum status kv_tier_reads_create(struct kv_tier_reads **out, int fd, const struct kv_tier_options *opt,
                                 size_t block_bytes, struct error *err)
{
    /* What was written lately is in the page cache; a direct read would first wait for it to be written out. */
    const struct io_options io = { .fds = &fd,
                                   .n_files = 1,
                                   .kind = IO_PREAD,
                                   .cached = true,
                                   .n_slots = KV_TIER_MAX_READS,
                                   .slot_bytes = block_bytes,
                                   .pread = opt->io ? opt->io->read : NULL };
    struct kv_tier_reads *r = mem_zalloc(sizeof(*r));
    r->block_bytes = block_bytes;
    r->on_read = opt->on_read;
    r->ctx = opt->ctx;
    worker_init(&r->reader);
    enum status st = io_reader_create(&r->io, &io, err);
    if (st == OK && (st = worker_start(&r->reader, "kv-tier-read", read_next, r)) != OK)
        error_set(err, st, "kv.tier_path: cannot start a thread that reads");
    if (st != OK) {
        kv_tier_reads_destroy(r);
        return st;
    }
    *out = r;
    return OK;
}

void kv_tier_reads_destroy(struct kv_tier_reads *r)
{
    if (!r) return;
    worker_fini(&r->reader);
    io_reader_destroy(r->io);
    mem_free(r);
}

bool kv_tier_reads_ask(struct kv_tier_reads *r, uint32_t slot, uint64_t sum)
{
    worker_lock(&r->reader);
    struct read *x = oldest(r, FREE);
    if (x) *x = (struct read){ .step = ASKED, .slot = slot, .sum = sum, .ticket = ++r->last_ticket };
    worker_unlock(&r->reader);
    return x != NULL;
}

void kv_tier_reads_go(struct kv_tier_reads *r)
{
    worker_lock(&r->reader);
    worker_wake(&r->reader);
    worker_unlock(&r->reader);
}

/* Under the lock.  A slot may have been written anew since: then the checksum is another one. */
static struct read *find(struct kv_tier_reads *r, uint32_t slot, uint64_t sum)
{
    for (struct read *x = r->reads; x < r->reads + KV_TIER_MAX_READS; x++)
        if (x->step != FREE && !x->dropped && x->slot == slot && x->sum == sum) return x;
    return NULL;
}

struct kv_tier_read kv_tier_reads_look(struct kv_tier_reads *r, uint32_t slot, uint64_t sum)
{
    worker_lock(&r->reader);
    const struct read *x = find(r, slot, sum);
    struct kv_tier_read result = { x ? KV_READ_COMING : KV_READ_NONE, NULL, 0 };
    if (x && x->step == OVER) result = x->result;
    worker_unlock(&r->reader);
    return result;
}

static void drop(struct read *x)
{
    x->dropped = x->step == STARTED;
    if (!x->dropped) x->step = FREE;
}

void kv_tier_reads_drop(struct kv_tier_reads *r, uint32_t slot, uint64_t sum)
{
    worker_lock(&r->reader);
    struct read *x = find(r, slot, sum);
    if (x) drop(x);
    worker_unlock(&r->reader);
}

void kv_tier_reads_drop_all(struct kv_tier_reads *r)
{
    worker_lock(&r->reader);
    for (struct read *x = r->reads; x < r->reads + KV_TIER_MAX_READS; x++) drop(x);
    worker_unlock(&r->reader);
}
