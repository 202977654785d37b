/* weights_pack.c - fills the arena: packed by the backend, private to a process or shared by a host's nodes. */
#include "base/clock.h"
#include "base/host_memory.h"
#include "base/huge_pages.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/gguf.h"
#include "model/expert_stream.h"
#include "model/weight_pieces.h"
#include "model/weight_stream.h"
#include "model/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define SHARED_MAGIC        "BATONWT\n"
#define SHARED_VERSION      2
#define SHARED_HEADER_BYTES 4096 /* a page, so that the arena is aligned like a private one */
#define LOAD_SLOTS          16   /* reads under way while loading */
#define SHARED_SEALS        (F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* At the start of a shared arena; the process that maps it trusts nothing else about it. */
struct shared_header {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes;
    uint64_t fingerprint; /* of the model file */
    uint64_t plan_hash;   /* of the arena's plan: what lies where, of which type and shape */
    uint64_t arena_bytes;
    char backend[24]; /* whose layout it is; the same for all its instruction sets */
};
_Static_assert(sizeof(struct shared_header) == 64, "the header's layout is shared between processes");

static uint64_t plan_hash(const struct weights *w)
{
    XXH64_hash_t h = 0;
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        const uint64_t facts[] = { it->offset, it->bytes, it->dtype, it->n_rows, it->n_cols, it->n_experts, h };
        h = XXH3_64bits(facts, sizeof(facts));
    }
    return h;
}

static struct shared_header header_of(const struct weights *w)
{
    struct shared_header h = { .version = SHARED_VERSION,
                               .header_bytes = SHARED_HEADER_BYTES,
                               .fingerprint = w->fingerprint,
                               .plan_hash = plan_hash(w),
                               .arena_bytes = w->arena_bytes };
    memcpy(h.magic, SHARED_MAGIC, sizeof(h.magic));
    strncpy(h.backend, w->backend->ops->name, sizeof(h.backend) - 1);
    return h;
}

/* The arena has its address: the forward's pointers get theirs.  Matrices that are streamed have none. */
static void resolve(struct weights *w, bool matrices)
{
    for (uint32_t i = 0; i < w->n_items; i++) {
        const struct weight_item *it = &w->items[i];
        const void *p = w->arena + it->offset;
        if (it->is_vector) {
            *it->vector = p;
            continue;
        }
        if (it->is_table) {
            *it->table = matrices ? p : NULL;
            continue;
        }
        *it->matrix = (struct weight){ .dtype = it->dtype,
                                       .precision = it->precision,
                                       .n_rows = it->n_rows,
                                       .n_cols = it->n_cols,
                                       .n_experts = it->n_experts,
                                       .expert_bytes = it->expert_bytes,
                                       .data = matrices ? p : NULL,
                                       .bytes = it->bytes,
                                       .n_rows_full = it->n_rows,
                                       .n_cols_full = it->n_cols,
                                       .item = i };
    }
}

/* The file's pages of these bytes are in the arena now: without this the process would hold both. */
static void drop_pages(const struct weights *w, uint32_t part, uint64_t offset, size_t n)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)gguf_part(w->g, part).p + offset;
    uintptr_t begin = (at + page - 1) / page * page, end = (at + n) / page * page;
    if (gguf_fds(w->g) && end > begin) madvise((void *)begin, end - begin, MADV_DONTNEED); /* only a hint */
}

static void drop_all_pages(const struct weights *w)
{
    for (uint32_t i = 0; i < gguf_n_parts(w->g); i++) drop_pages(w, i, 0, gguf_part(w->g, i).n);
}

static bool all_cached(const struct gguf *g)
{
    bool cached = true;
    for (uint32_t i = 0; cached && i < gguf_n_parts(g); i++)
        cached = io_is_cached(gguf_part(g, i).p, gguf_part(g, i).n);
    return cached;
}

/* A reader, with the memory of its slots where that is the backend's to give: it copies fastest from there. */
struct source {
    struct io_reader *reader; /* NULL: the bytes come from the mapping */
    void *pinned;
    size_t pinned_bytes;
};

static void source_close(struct source *s, struct backend *b)
{
    io_reader_destroy(s->reader);
    if (s->pinned) b->ops->host_free(b, s->pinned, s->pinned_bytes);
}

static enum status source_pin(struct source *s, struct backend *b, size_t slot_bytes, struct error *err)
{
    s->pinned_bytes = io_reader_bytes(LOAD_SLOTS, slot_bytes);
    enum status st = b->ops->host_alloc(b, s->pinned_bytes, &s->pinned);
    return st == OK ? OK : error_set(err, st, "read buffers need %zu bytes of pinned memory", s->pinned_bytes);
}

/* From the mapping comes what is memory already, a file in the page cache, or what is asked for so; a device takes a
 * cached file through its slots, too. */
static enum status source_open(struct source *s, const struct weights *w, const struct weight_pieces *ps,
                               enum io_kind kind, struct error *err)
{
    struct io_options io = { .fds = gguf_fds(w->g),
                             .n_files = gguf_n_parts(w->g),
                             .kind = kind,
                             .n_slots = LOAD_SLOTS,
                             .slot_bytes = ps->max_bytes };
    const bool host = w->backend->caps.host_memory, cached = kind == IO_AUTO && all_cached(w->g);
    if (!io.fds || kind == IO_MMAP || (cached && host)) return OK;
    if (!host) {
        enum status st = source_pin(s, w->backend, io.slot_bytes, err);
        if (st != OK) return st;
        io.memory = s->pinned;
    }
    if (cached) {
        io.kind = IO_PREAD;
        io.cached = true;
    }
    return io_reader_create(&s->reader, &io, err);
}

static void start_read(struct io_reader *r, const struct weight_pieces *ps, uint32_t i)
{
    if (!r || i >= ps->n) return;
    const struct weight_piece *p = &ps->at[i];
    io_reader_start(r, i % LOAD_SLOTS, p->src->part, p->offset, p->bytes);
}

/* Memory that is packed into. */
struct arena {
    uint8_t *base, *p; /* of the memory, and of what the plan's offsets count from */
    size_t bytes;      /* from base whose pages are made ready ahead; 0: packing makes them */
    bool shared;
};

static enum status pack_piece(const struct weights *w, const struct weight_piece *p, const uint8_t *src,
                              const struct arena *arena, struct huge_ahead *pages, struct error *err)
{
    uint8_t *item = arena->p + p->item->offset;
    struct weight_piece after = *p;
    after.row0 += p->n_rows;
    huge_ahead_wait(pages, item + weight_piece_place(w->backend, &after));
    enum status st = weight_piece_pack(w->backend, NULL, p, src, item + weight_piece_place(w->backend, p));
    return st == OK ? OK : error_set(err, st, "tensor %s: packing failed (%s)", p->src->name, status_text(st));
}

/* Pieces whose packing is under way, oldest first; their slots and pages are still needed. */
struct packing {
    struct mark done[LOAD_SLOTS];
    uint32_t oldest, next;
    uint64_t bytes, all;
};

/* Gives back what is packed, and waits for it where more than `under_way` pieces are not. */
static enum status give_back(struct packing *k, const struct weights *w, const struct weight_pieces *ps,
                             struct io_reader *r, uint32_t under_way, const struct weights_load_options *opt)
{
    for (; k->oldest < k->next; k->oldest++) {
        const struct mark *done = &k->done[k->oldest % LOAD_SLOTS];
        const struct weight_piece *p = &ps->at[k->oldest];
        if (k->next - k->oldest <= under_way && !mark_done(done)) return OK;
        enum status st = mark_wait(done);
        if (st != OK) return st;
        start_read(r, ps, k->oldest + LOAD_SLOTS);
        if (!r) drop_pages(w, p->src->part, p->offset, p->bytes);
        k->bytes += p->bytes;
        if (opt->progress) opt->progress(opt->ctx, k->bytes, k->all);
    }
    return OK;
}

/* The next piece from the reader, or from the mapping. */
static enum status pack_next(struct packing *k, const struct weights *w, const struct weight_pieces *ps,
                             struct io_reader *r, const struct arena *arena, struct huge_ahead *pages,
                             struct error *err)
{
    const struct weight_piece *p = &ps->at[k->next];
    const uint8_t *src = gguf_part(w->g, p->src->part).p + p->offset;
    enum status st = r ? io_reader_wait(r, k->next % LOAD_SLOTS, &src, err) : OK;
    if (st != OK) return error_prefix(err, "tensor %s", p->src->name);
    if ((st = pack_piece(w, p, src, arena, pages, err)) != OK) return st;
    return w->backend->ops->mark_record(w->backend, NULL, &k->done[k->next++ % LOAD_SLOTS]);
}

/* Packing of a piece overlaps the reads of those after it. */
static enum status pack_in_order(struct weights *w, const struct weight_pieces *ps, struct io_reader *r,
                                 const struct arena *arena, struct huge_ahead *pages,
                                 const struct weights_load_options *opt, struct error *err)
{
    struct packing k = { 0 };
    enum status st = OK;
    for (uint32_t i = 0; i < ps->n; i++) k.all += ps->at[i].bytes;
    while (k.next < ps->n && st == OK) {
        if ((st = pack_next(&k, w, ps, r, arena, pages, err)) != OK) break;
        st = give_back(&k, w, ps, r, k.next < ps->n ? LOAD_SLOTS / 2 : 0, opt);
        if (st != OK) error_set(err, st, "packing the weights failed (%s)", status_text(st));
    }
    const enum status idle = w->backend->ops->sync(w->backend, NULL); /* slots go away, whatever has failed */
    return st == OK ? idle : st;
}

/* Reads begin before pages are made: both take the lock of the address space, and the disk is what is waited for. */
static enum status pack_pieces(struct weights *w, const struct weight_pieces *ps, struct io_reader *r,
                               const struct arena *arena, const struct weights_load_options *opt, struct error *err)
{
    for (uint32_t i = 0; i < LOAD_SLOTS; i++) start_read(r, ps, i);
    struct huge_ahead *pages = arena->bytes ? huge_ahead_start(arena->base, arena->bytes, arena->shared) : NULL;
    enum status st = pack_in_order(w, ps, r, arena, pages, opt, err);
    huge_ahead_stop(pages);
    return st;
}

/* Vectors, and matrices if asked for, into the arena. */
static enum status pack_all(struct weights *w, const struct arena *arena, bool matrices,
                            const struct weights_load_options *opt, struct error *err)
{
    struct weight_pieces ps = { 0 };
    struct source source = { 0 };
    uint64_t start = clock_now_us(), bytes = 0;
    for (uint32_t i = 0; i < w->n_items; i++)
        if (matrices || w->items[i].is_vector) weight_pieces_add(&ps, &w->items[i], w->backend->caps.row_quantum);
    for (uint32_t i = 0; i < ps.n; i++) bytes += ps.at[i].bytes;
    enum status st = source_open(&source, w, &ps, opt->io, err);
    struct io_reader *r = source.reader;
    if (st == OK) st = pack_pieces(w, &ps, r, arena, opt, err);
    uint64_t us = clock_now_us() - start;
    if (st == OK && matrices)
        log_info("weights_read", "io=%s direct=%d mib=%llu ms=%llu mb_s=%llu", r ? io_reader_kind(r) : "mmap",
                 r && io_reader_is_direct(r), (unsigned long long)(bytes >> 20), (unsigned long long)(us / 1000),
                 (unsigned long long)(bytes / (us ? us : 1)));
    source_close(&source, w->backend);
    weight_pieces_fini(&ps);
    drop_all_pages(w); /* the fingerprint has read a sample of each tensor */
    return st;
}

static enum status alloc_arena(struct weights *w, struct error *err)
{
    void *arena = NULL;
    enum status st = w->backend->ops->alloc(w->backend, w->arena_bytes, &arena);
    if (st != OK)
        return error_set(err, st, "the weights need %zu bytes, which the %s backend cannot give", w->arena_bytes,
                         w->backend->ops->name);
    w->arena = arena;
    return OK;
}

enum status weights_load(struct weights *w, const struct weights_load_options *opt, struct error *err)
{
    enum status st = alloc_arena(w, err);
    if (st != OK) return st;
    resolve(w, true);
    struct arena arena = { w->arena, w->arena, w->backend->caps.host_memory ? w->arena_bytes : 0, false };
    return pack_all(w, &arena, true, opt, err);
}

/* The arena holds vectors alone: their places close up. */
static void plan_vectors(struct weights *w)
{
    size_t at = 0;
    for (uint32_t i = 0; i < w->n_items; i++) {
        if (!w->items[i].is_vector) continue;
        w->items[i].offset = at;
        at += (w->items[i].bytes + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    }
    w->arena_bytes = at;
}

enum status weights_open_stream(struct weights *w, const struct weights_load_options *opt, struct error *err)
{
    struct io_options io = { .kind = opt->io };
    plan_vectors(w);
    enum status st = alloc_arena(w, err);
    if (st != OK) return st;
    resolve(w, false);
    if ((st = pack_all(w, &(struct arena){ w->arena, w->arena, 0, false }, false, opt, err)) != OK) return st;
    if ((st = weight_stream_create(&w->stream, w, &io, err)) != OK) return st;
    return expert_stream_create(&w->experts, w, &io, err);
}

static enum status check_shared(const struct weights *w, int fd, struct error *err)
{
    struct shared_header want = header_of(w), have;
    struct stat sb;
    int seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & SHARED_SEALS) != SHARED_SEALS)
        return error_set(err, ERR_INVALID, "shared weights: descriptor %d is not a sealed memfd", fd);
    if (fstat(fd, &sb) != 0 || pread(fd, &have, sizeof(have), 0) != (ssize_t)sizeof(have))
        return error_set(err, ERR_IO, "shared weights: cannot read descriptor %d: %s", fd, strerror(errno));
    if (memcmp(have.magic, want.magic, sizeof(want.magic)) != 0 || have.version != want.version)
        return error_set(err, ERR_MISMATCH, "shared weights: not written by this version");
    if (have.fingerprint != want.fingerprint)
        return error_set(err, ERR_MISMATCH, "shared weights are of model %016llx, the file is %016llx",
                         (unsigned long long)have.fingerprint, (unsigned long long)want.fingerprint);
    uint64_t size = want.arena_bytes + SHARED_HEADER_BYTES;
    if (memcmp(&have, &want, sizeof(want)) != 0 || (uint64_t)sb.st_size != size)
        return error_set(err, ERR_MISMATCH,
                         "shared weights: %llu bytes of layout %016llx for %.24s, expected %llu of "
                         "%016llx for %.24s",
                         (unsigned long long)sb.st_size, (unsigned long long)have.plan_hash, have.backend,
                         (unsigned long long)size, (unsigned long long)want.plan_hash, want.backend);
    return OK;
}

enum status weights_map(struct weights *w, int fd, struct error *err)
{
    if (!w->backend->caps.host_memory)
        return error_set(err, ERR_UNSUPPORTED, "weights are shared through host memory, backend %s has its own",
                         w->backend->ops->name);
    enum status st = check_shared(w, fd, err);
    if (st != OK) return st;
    size_t bytes = w->arena_bytes + SHARED_HEADER_BYTES;
    void *p;
    if (huge_map_shared(&p, fd, bytes, false) != OK)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot map %zu bytes: %s", bytes, strerror(errno));
    w->mapping = p;
    w->mapping_bytes = bytes;
    w->arena = (uint8_t *)p + SHARED_HEADER_BYTES;
    resolve(w, true);
    drop_all_pages(w); /* the fingerprint has read a sample of each tensor */
    return OK;
}

static enum status fill_shared(struct weights *w, int fd, const struct weights_load_options *opt, struct error *err)
{
    size_t bytes = w->arena_bytes + SHARED_HEADER_BYTES;
    if (ftruncate(fd, (off_t)bytes) != 0)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot make %zu bytes: %s", bytes, strerror(errno));
    void *p;
    if (huge_map_shared(&p, fd, bytes, true) != OK)
        return error_set(err, ERR_NO_MEMORY, "shared weights: cannot map %zu bytes: %s", bytes, strerror(errno));
    enum status st = pack_all(w, &(struct arena){ p, (uint8_t *)p + SHARED_HEADER_BYTES, bytes, true }, true, opt, err);
    struct shared_header h = header_of(w);
    memcpy(p, &h, sizeof(h));
    munmap(p, bytes);
    if (st != OK) return st;
    if (fcntl(fd, F_ADD_SEALS, SHARED_SEALS | F_SEAL_SEAL) != 0)
        return error_set(err, ERR_IO, "shared weights: cannot seal: %s", strerror(errno));
    return OK;
}

enum status weights_share(struct weights *w, int *fd, const struct weights_load_options *opt, struct error *err)
{
    if (!w->backend->caps.host_memory)
        return error_set(err, ERR_UNSUPPORTED, "weights are shared through host memory, backend %s has its own",
                         w->backend->ops->name);
    enum status st;
    int mem = memfd_create("baton-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (mem < 0) return error_set(err, ERR_IO, "shared weights: memfd_create: %s", strerror(errno));
    if ((st = fill_shared(w, mem, opt, err)) != OK) {
        close(mem);
        return st;
    }
    *fd = mem;
    return OK;
}

size_t weights_embed_row_bytes(const struct weights *w)
{
    return (size_t)(w->embed->bytes / w->embed->ne[1]);
}

enum status weights_read_embed(const struct weights *w, uint32_t i, uint8_t *dst)
{
    size_t n = weights_embed_row_bytes(w), got = 0;
    uint64_t at = w->embed->offset + (uint64_t)i * n;
    if (i >= w->embed->ne[1]) return ERR_INVALID;
    const int *fds = gguf_fds(w->g);
    if (!fds) {
        memcpy(dst, gguf_part(w->g, w->embed->part).p + at, n);
        return OK;
    }
    while (got < n) {
        ssize_t more = pread(fds[w->embed->part], dst + got, n - got, (off_t)(at + got));
        if (more < 0 && errno == EINTR) continue;
        if (more <= 0) {
            log_error("weights_read_failed", "tensor=%s row=%u reason=%s", w->embed->name, i,
                      log_quote(more < 0 ? strerror(errno) : "the file was cut while in use"));
            return ERR_IO;
        }
        got += (size_t)more;
    }
    return OK;
}

void weights_fini(struct weights *w)
{
    weight_stream_destroy(w->stream);
    expert_stream_destroy(w->experts);
    if (w->mapping)
        munmap(w->mapping, w->mapping_bytes);
    else if (w->arena)
        w->backend->ops->release(w->backend, w->arena, w->arena_bytes);
    mem_free(w->items);
    *w = (struct weights){ 0 };
}
