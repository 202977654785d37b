/* io_read.h - reads of a few files, many under way at once, each into a slot of memory that the reader owns.
 *
 * Reads go through io_uring, past the page cache (O_DIRECT) and into registered buffers.  Where the kernel does not
 * permit io_uring, or the file system refuses O_DIRECT, a pool of threads with pread() takes over and a log line
 * says so.  One thread at a time uses a reader; no call but create allocates. */
#ifndef BASE_IO_READ_H
#define BASE_IO_READ_H
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct io_reader;

enum io_kind {
    IO_AUTO, /* io_uring, or the pool where it cannot be had */
    IO_URING,
    IO_PREAD,
    IO_MMAP /* no reader at all: the caller takes the bytes from its mapping */
};

struct io_options {
    const int *fds; /* of regular files; borrowed for the call: the reader opens the same files anew */
    uint32_t n_files;
    enum io_kind kind;
    uint32_t n_slots;
    size_t slot_bytes; /* longest read */
    void *memory; /* for the slots: io_reader_bytes(), aligned to a page, borrowed; NULL: the reader takes its own */
    bool cached;  /* with IO_PREAD: through the page cache, where most of the file is */
    /* In place of pread(2), for tests of failing disks; NULL: the system's.  Takes part with IO_PREAD. */
    ssize_t (*pread)(int fd, void *buf, size_t n, off_t at);
};

/* ERR_UNSUPPORTED if IO_URING is asked for and cannot be had; IO_AUTO falls back to the pool. */
enum status io_reader_create(struct io_reader **out, const struct io_options *opt, struct error *err) MUST_CHECK;
void io_reader_destroy(struct io_reader *r); /* waits for what is under way; NULL is fine */
/* "io_uring" or "pread", and whether it goes past the page cache. */
const char *io_reader_kind(const struct io_reader *r);
bool io_reader_is_direct(const struct io_reader *r);
/* What a reader of that many slots takes of memory. */
uint64_t io_reader_bytes(uint32_t n_slots, size_t slot_bytes);

/* Begins to read bytes [offset, offset + bytes) of fds[file] into a slot that no read is under way for. */
void io_reader_start(struct io_reader *r, uint32_t slot, uint32_t file, uint64_t offset, size_t bytes);
/* Waits for that read.  *out: its bytes, any alignment, valid until the slot's next start.  ERR_IO: the disk failed
 * or the file ends before them. */
enum status io_reader_wait(struct io_reader *r, uint32_t slot, const uint8_t **out, struct error *err) MUST_CHECK;

/* Whether most of a mapped file lies in the page cache: mincore() of pages evenly spread over it. */
bool io_is_cached(const void *map, size_t bytes);
#endif
