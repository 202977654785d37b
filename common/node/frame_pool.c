/* frame_pool.c - a fixed number of payload buffers that ZeroMQ reads from until they are on the wire. */
#include "node/frame_pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct frame {
    struct frame_pool *pool;
    struct frame *next;
    uint8_t *bytes;
};

struct frame_pool {
    pthread_mutex_t lock;
    pthread_cond_t all_back;
    struct frame *free; /* guarded by lock */
    uint32_t n_free, n_frames;
    bool wanted; /* a take failed: wake the taker */
    int fd;
    struct backend *backend; /* borrowed; its is the memory */
    uint8_t *memory;
    size_t bytes;
    struct frame frames[];
};

enum status frame_pool_create(struct frame_pool **out, struct backend *backend, uint32_t n_frames, size_t frame_bytes)
{
    size_t stride = (frame_bytes + 4095) / 4096 * 4096;
    struct frame_pool *p = mem_zalloc(sizeof(*p) + n_frames * sizeof(struct frame));
    void *memory;
    enum status st;

    p->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    st = p->fd < 0 ? ERR_IO : backend->ops->host_alloc(backend, n_frames * stride, &memory);
    if (st != OK) {
        if (p->fd >= 0) close(p->fd);
        mem_free(p);
        return st;
    }
    memset(memory, 0, n_frames * stride); /* its pages are made now, not by the first request */
    p->backend = backend;
    p->memory = memory;
    p->bytes = n_frames * stride;
    p->n_frames = p->n_free = n_frames;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->all_back, NULL);
    for (uint32_t i = 0; i < n_frames; i++) {
        p->frames[i] = (struct frame){ p, p->free, p->memory + i * stride };
        p->free = &p->frames[i];
    }
    *out = p;
    return OK;
}

void frame_pool_destroy(struct frame_pool *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    while (p->n_free < p->n_frames) pthread_cond_wait(&p->all_back, &p->lock);
    pthread_mutex_unlock(&p->lock);
    pthread_cond_destroy(&p->all_back);
    pthread_mutex_destroy(&p->lock);
    p->backend->ops->host_free(p->backend, p->memory, p->bytes);
    close(p->fd);
    mem_free(p);
}

struct frame *frame_pool_take(struct frame_pool *p)
{
    struct frame *f;

    pthread_mutex_lock(&p->lock);
    f = p->free;
    if (f) {
        p->free = f->next;
        p->n_free--;
    } else {
        p->wanted = true;
    }
    pthread_mutex_unlock(&p->lock);
    return f;
}

uint8_t *frame_bytes(struct frame *f)
{
    return f->bytes;
}

void frame_give_back(void *data, void *frame)
{
    struct frame *f = frame;
    struct frame_pool *p = f->pool;
    const uint64_t one = 1;
    (void)data;

    pthread_mutex_lock(&p->lock);
    f->next = p->free;
    p->free = f;
    p->n_free++;
    if (p->wanted && write(p->fd, &one, sizeof(one)) == (ssize_t)sizeof(one)) p->wanted = false;
    if (p->n_free == p->n_frames) pthread_cond_broadcast(&p->all_back);
    pthread_mutex_unlock(&p->lock);
}

int frame_pool_fd(const struct frame_pool *p)
{
    return p->fd;
}

void frame_pool_clear_fd(struct frame_pool *p)
{
    uint64_t n;
    while (read(p->fd, &n, sizeof(n)) == (ssize_t)sizeof(n)) {}
}
