/* mailbox.c - a ring under a mutex, with an eventfd that says whether it holds anything. */
#include "base/mailbox.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock;
    void **ring;
    uint32_t capacity;
    uint32_t head; /* oldest message */
    uint32_t n;
    bool closed;
    pthread_cond_t room; /* a full box is full no more, or is closed */
    int fd;              /* counter is 1 exactly while n > 0; changed under the lock */
};

enum status mailbox_create(struct mailbox **out, uint32_t capacity)
{
    if (capacity == 0) return ERR_INVALID;
    void *ring;
    enum status st = mem_try_array(&ring, capacity, sizeof(void *));
    if (st != OK) return st;
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        mem_free(ring);
        return ERR_IO;
    }
    struct mailbox *m = mem_zalloc(sizeof(*m));
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->room, NULL);
    m->ring = ring;
    m->capacity = capacity;
    m->fd = fd;
    *out = m;
    return OK;
}

void mailbox_destroy(struct mailbox *m)
{
    if (!m) return;
    assert(m->n == 0);
    close(m->fd);
    pthread_cond_destroy(&m->room);
    pthread_mutex_destroy(&m->lock);
    mem_free(m->ring);
    mem_free(m);
}

/* The fd flips only when the box becomes empty or stops being so, inside the lock: a loop that sees
 * it readable finds a message, and a burst of posts costs one system call. */
static void fd_raise(int fd)
{
    uint64_t one = 1;
    ssize_t got;
    do got = write(fd, &one, sizeof(one));
    while (got < 0 && errno == EINTR);
    assert(got == sizeof(one));
}

static void fd_clear(int fd)
{
    uint64_t count;
    ssize_t got;
    do got = read(fd, &count, sizeof(count));
    while (got < 0 && errno == EINTR);
    assert(got == sizeof(count));
}

static void put(struct mailbox *m, void *msg)
{
    uint32_t tail = (uint32_t)(((uint64_t)m->head + m->n) % m->capacity);
    m->ring[tail] = msg;
    if (m->n++ == 0) fd_raise(m->fd);
}

enum status mailbox_post(struct mailbox *m, void *msg)
{
    assert(msg);
    enum status st = ERR_FULL;
    pthread_mutex_lock(&m->lock);
    if (m->n < m->capacity) {
        put(m, msg);
        st = OK;
    }
    pthread_mutex_unlock(&m->lock);
    return st;
}

enum status mailbox_post_wait(struct mailbox *m, void *msg)
{
    assert(msg);
    enum status st = ERR_CLOSED;
    pthread_mutex_lock(&m->lock);
    while (m->n == m->capacity && !m->closed) pthread_cond_wait(&m->room, &m->lock);
    if (!m->closed) {
        put(m, msg);
        st = OK;
    }
    pthread_mutex_unlock(&m->lock);
    return st;
}

void mailbox_close(struct mailbox *m)
{
    pthread_mutex_lock(&m->lock);
    m->closed = true;
    pthread_cond_broadcast(&m->room);
    pthread_mutex_unlock(&m->lock);
}

void *mailbox_try_take(struct mailbox *m)
{
    void *msg = NULL;
    pthread_mutex_lock(&m->lock);
    if (m->n > 0) {
        msg = m->ring[m->head];
        m->head = m->head + 1 == m->capacity ? 0 : m->head + 1;
        if (m->n == m->capacity) pthread_cond_broadcast(&m->room);
        if (--m->n == 0) fd_clear(m->fd);
    }
    pthread_mutex_unlock(&m->lock);
    return msg;
}

/* Real time, also where a test has frozen clock.h: a wait has to end. */
static int64_t real_ms(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

void *mailbox_take(struct mailbox *m, int timeout_ms)
{
    int64_t deadline = timeout_ms < 0 ? 0 : real_ms() + timeout_ms;
    for (;;) {
        void *msg = mailbox_try_take(m);
        if (msg) return msg;
        int64_t left = timeout_ms < 0 ? -1 : deadline - real_ms();
        if (timeout_ms >= 0 && left <= 0) return NULL;
        struct pollfd p = { .fd = m->fd, .events = POLLIN };
        poll(&p, 1, (int)left); /* an early wake-up, EINTR too, only takes another turn */
    }
}

int mailbox_fd(const struct mailbox *m)
{
    return m->fd;
}
