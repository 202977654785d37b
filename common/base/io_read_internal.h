/* io_read_internal.h - a reader's slots, shared by io_read.c and its two ways of reading. */
#ifndef BASE_IO_READ_INTERNAL_H
#define BASE_IO_READ_INTERNAL_H
#include "base/io_read.h"

#define IO_ALIGN 4096u /* of addresses, offsets and lengths under O_DIRECT */

struct io_slot {
    uint8_t *memory; /* slot_bytes and room to widen a read to whole blocks */
    int fd;
    uint64_t offset; /* of memory[0] in the file, a multiple of IO_ALIGN */
    size_t skip;     /* memory[skip] is the first byte asked for */
    size_t need;     /* bytes from memory[0] that must arrive */
    size_t length;   /* bytes from memory[0] that are read, a multiple of IO_ALIGN */
    size_t got;
    int error;    /* errno, 0 = fine */
    bool started; /* the caller's: a read was begun and not waited for */
    bool busy;    /* the ops': it is under way */
};

struct io_ops {
    const char *name;
    void (*start)(struct io_reader *r, uint32_t slot); /* reads [got, length) */
    void (*wait)(struct io_reader *r, uint32_t slot);  /* until the slot is not busy */
    void (*close)(struct io_reader *r);                /* no slot is busy */
};

struct io_reader {
    const struct io_ops *ops;
    void *how; /* the ops' own */
    int *fds;  /* [n_files]; -1: not open */
    uint32_t n_files;
    bool direct; /* all of them */
    ssize_t (*pread)(int fd, void *buf, size_t n, off_t at);
    struct io_slot *slots;
    uint32_t n_slots;
    size_t slot_bytes; /* of memory per slot */
    uint8_t *memory;
    size_t memory_bytes;
    bool owns_memory;
};

/* Takes `n` bytes, or an errno, for what was read at [got, ...).  True: the slot is through. */
bool io_slot_take(struct io_slot *s, ssize_t n, int error);

enum status io_uring_open(struct io_reader *r, struct error *err) MUST_CHECK;
enum status io_pool_open(struct io_reader *r, struct error *err) MUST_CHECK;
#endif
