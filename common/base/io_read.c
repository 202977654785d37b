/* io_read.c - opens files for queued reads, cuts reads to whole blocks, and says what went wrong. */
#include "base/io_read.h"

#include "base/io_read_internal.h"
#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CACHE_SAMPLES 256

static uint64_t whole_blocks(uint64_t bytes)
{
    return (bytes + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
}

/* A read may begin in the middle of a block. */
static uint64_t slot_memory(size_t slot_bytes)
{
    return whole_blocks(slot_bytes) + IO_ALIGN;
}

uint64_t io_reader_bytes(uint32_t n_slots, size_t slot_bytes)
{
    return n_slots * slot_memory(slot_bytes);
}

/* The same file under an open description of its own, so that O_DIRECT is not forced on others. */
static int reopen(int fd, int flags)
{
    char path[32];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC | flags);
}

/* Some file systems take the flag and refuse the read. */
static bool can_read_direct(struct io_reader *r, int fd)
{
    return pread(fd, r->memory, IO_ALIGN, 0) > 0;
}

static void close_files(struct io_reader *r)
{
    for (uint32_t i = 0; i < r->n_files; i++) {
        if (r->fds[i] >= 0) close(r->fds[i]);
        r->fds[i] = -1;
    }
}

static bool open_direct(struct io_reader *r, const struct io_options *opt)
{
    for (uint32_t i = 0; i < r->n_files; i++) {
        r->fds[i] = reopen(opt->fds[i], O_DIRECT);
        if (r->fds[i] < 0 || !can_read_direct(r, r->fds[i])) return false;
    }
    return true;
}

static enum status open_files(struct io_reader *r, const struct io_options *opt, struct error *err)
{
    r->direct = !opt->cached && open_direct(r, opt);
    if (r->direct) return OK;
    close_files(r);
    for (uint32_t i = 0; i < r->n_files; i++)
        if ((r->fds[i] = reopen(opt->fds[i], 0)) < 0)
            return error_set(err, ERR_IO, "cannot open the file for reading: %s", strerror(errno));
    return OK;
}

static enum status open_how(struct io_reader *r, enum io_kind kind, struct error *err)
{
    struct error why = { 0 };
    if (kind != IO_PREAD) {
        enum status st =
            r->direct ? io_uring_open(r, &why) : error_set(&why, ERR_UNSUPPORTED, "the file system refuses O_DIRECT");
        if (st == OK) return OK;
        if (kind == IO_URING) return error_set(err, st, "reading through io_uring: %s", why.text);
        log_info("io_fallback", "io=pread direct=%d reason=%s", r->direct, log_quote(why.text));
    }
    return io_pool_open(r, err);
}

enum status io_reader_create(struct io_reader **out, const struct io_options *opt, struct error *err)
{
    struct io_reader *r = mem_zalloc(sizeof(*r));
    enum status st;

    r->fds = mem_array(opt->n_files, sizeof(*r->fds));
    for (; r->n_files < opt->n_files; r->n_files++) r->fds[r->n_files] = -1;
    r->pread = opt->pread ? opt->pread : pread;
    r->n_slots = opt->n_slots;
    r->slot_bytes = slot_memory(opt->slot_bytes);
    r->memory_bytes = r->n_slots * r->slot_bytes;
    r->memory = opt->memory;
    r->owns_memory = !opt->memory;
    if (r->owns_memory && (st = mem_try_map((void **)&r->memory, r->memory_bytes)) != OK) {
        error_set(err, st, "read buffers need %zu bytes", r->memory_bytes);
        goto fail;
    }
    r->slots = mem_array(r->n_slots, sizeof(*r->slots));
    for (uint32_t i = 0; i < r->n_slots; i++) r->slots[i].memory = r->memory + i * r->slot_bytes;
    if ((st = open_files(r, opt, err)) != OK) goto fail;
    if ((st = open_how(r, opt->kind, err)) != OK) goto fail;
    *out = r;
    return OK;
fail:
    io_reader_destroy(r);
    return st;
}

void io_reader_destroy(struct io_reader *r)
{
    if (!r) return;
    for (uint32_t i = 0; r->ops && i < r->n_slots; i++)
        if (r->slots[i].started) r->ops->wait(r, i);
    if (r->ops) r->ops->close(r);
    close_files(r);
    mem_free(r->fds);
    mem_free(r->slots);
    if (r->memory && r->owns_memory) mem_unmap(r->memory, r->memory_bytes);
    mem_free(r);
}

const char *io_reader_kind(const struct io_reader *r)
{
    return r->ops->name;
}

bool io_reader_is_direct(const struct io_reader *r)
{
    return r->direct;
}

void io_reader_start(struct io_reader *r, uint32_t slot, uint32_t file, uint64_t offset, size_t bytes)
{
    struct io_slot *s = &r->slots[slot];
    assert(slot < r->n_slots && file < r->n_files && !s->started && bytes > 0);
    s->fd = r->fds[file];
    s->offset = offset / IO_ALIGN * IO_ALIGN;
    s->skip = (size_t)(offset - s->offset);
    s->need = s->skip + bytes;
    s->length = (size_t)whole_blocks(s->need);
    s->got = 0;
    s->error = 0;
    s->started = s->busy = true;
    assert(s->length <= r->slot_bytes);
    r->ops->start(r, slot);
}

bool io_slot_take(struct io_slot *s, ssize_t n, int error)
{
    if (error == EINTR || error == EAGAIN) return false;
    s->error = error;
    if (error || n <= 0) return true;
    s->got += (size_t)n;
    /* Only the end of the file cuts a block under O_DIRECT, and the rest could not be asked for. */
    return s->got >= s->need || s->got % IO_ALIGN != 0;
}

enum status io_reader_wait(struct io_reader *r, uint32_t slot, const uint8_t **out, struct error *err)
{
    struct io_slot *s = &r->slots[slot];
    if (s->started) r->ops->wait(r, slot);
    s->started = false;
    if (s->error)
        return error_set(err, ERR_IO, "reading %zu bytes at %llu failed: %s", s->need - s->skip,
                         (unsigned long long)(s->offset + s->skip), strerror(s->error));
    if (s->got < s->need)
        return error_set(err, ERR_IO, "the file ends at byte %llu, %llu were expected: it was cut while in use",
                         (unsigned long long)(s->offset + s->got), (unsigned long long)(s->offset + s->need));
    *out = s->memory + s->skip;
    return OK;
}

bool io_is_cached(const void *map, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n_pages = bytes / page, n = 0;
    if (n_pages == 0) return true;
    for (size_t i = 0; i < CACHE_SAMPLES; i++) {
        unsigned char in_core = 0;
        uintptr_t at = (uintptr_t)map + (2 * i + 1) * n_pages / (2 * CACHE_SAMPLES) * page;
        if (mincore((void *)(at / page * page), page, &in_core) == 0) n += in_core & 1;
    }
    return n * 10 >= CACHE_SAMPLES * 9; /* the rest costs the mapping little */
}
