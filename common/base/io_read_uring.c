/* io_read_uring.c - queued reads through io_uring into registered buffers. */
#include "base/io_read_internal.h"
#include "base/log.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <string.h>

struct uring {
    struct io_uring ring;
    bool registered;
};

static void uring_start(struct io_reader *r, uint32_t slot)
{
    struct uring *u = r->how;
    struct io_slot *s = &r->slots[slot];
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    assert(sqe); /* the queue has an entry for each slot */
    void *at = s->memory + s->got;
    unsigned n = (unsigned)(s->length - s->got);
    if (u->registered)
        io_uring_prep_read_fixed(sqe, s->fd, at, n, s->offset + s->got, 0);
    else
        io_uring_prep_read(sqe, s->fd, at, n, s->offset + s->got);
    sqe->user_data = slot;
    int n_submitted = io_uring_submit(&u->ring);
    while (n_submitted == -EINTR || n_submitted == -EAGAIN) n_submitted = io_uring_submit(&u->ring);
    if (n_submitted < 0) {
        s->error = -n_submitted;
        s->busy = false;
    }
}

static void uring_wait(struct io_reader *r, uint32_t slot)
{
    struct uring *u = r->how;
    struct io_uring_cqe *cqe;
    while (r->slots[slot].busy) {
        int e = io_uring_wait_cqe(&u->ring, &cqe);
        if (e == -EINTR || e == -EAGAIN) continue;
        assert(e == 0); /* the ring itself is broken: its buffers could still be written to */
        uint32_t done = (uint32_t)cqe->user_data;
        ssize_t res = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        struct io_slot *s = &r->slots[done];
        if (io_slot_take(s, res, res < 0 ? (int)-res : 0))
            s->busy = false;
        else
            uring_start(r, done);
    }
}

static void uring_close(struct io_reader *r)
{
    struct uring *u = r->how;
    io_uring_queue_exit(&u->ring);
    mem_free(u);
}

static const struct io_ops uring_ops = { "io_uring", uring_start, uring_wait, uring_close };

enum status io_uring_open(struct io_reader *r, struct error *err)
{
    struct uring *u = mem_zalloc(sizeof(*u));
    int e = io_uring_queue_init(r->n_slots, &u->ring, 0);
    if (e < 0) {
        mem_free(u);
        return error_set(err, ERR_UNSUPPORTED, "io_uring_setup: %s", strerror(-e));
    }
    struct iovec all = { r->memory, r->memory_bytes };
    e = io_uring_register_buffers(&u->ring, &all, 1);
    u->registered = e == 0;
    if (e < 0) log_info("io_unregistered", "bytes=%zu reason=%s", r->memory_bytes, log_quote(strerror(-e)));
    r->how = u;
    r->ops = &uring_ops;
    return OK;
}
