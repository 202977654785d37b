/* kv_told.c - the sending processes that coordinators have told a decode node of. */
#include "node/kv_told.h"

#include "base/mem.h"

#include <pthread.h>

struct kv_told {
    pthread_mutex_t lock;
    uint32_t n;
    struct {
        uint64_t coordinator, incarnation;
    } rows[KV_TOLD_MAX];
};

struct kv_told *kv_told_create(void)
{
    struct kv_told *t = mem_zalloc(sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    return t;
}

void kv_told_destroy(struct kv_told *t)
{
    if (!t) return;
    pthread_mutex_destroy(&t->lock);
    mem_free(t);
}

void kv_told_set(struct kv_told *t, uint64_t coordinator, const uint64_t *incarnations, uint32_t n)
{
    uint32_t kept = 0;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->n; i++)
        if (t->rows[i].coordinator != coordinator) t->rows[kept++] = t->rows[i];
    for (uint32_t i = 0; i < n && kept < KV_TOLD_MAX; i++, kept++) {
        t->rows[kept].coordinator = coordinator;
        t->rows[kept].incarnation = incarnations[i];
    }
    t->n = kept;
    pthread_mutex_unlock(&t->lock);
}

bool kv_told_has(struct kv_told *t, uint64_t incarnation)
{
    bool found = false;

    pthread_mutex_lock(&t->lock);
    for (uint32_t i = 0; i < t->n && !found; i++) found = t->rows[i].incarnation == incarnation;
    pthread_mutex_unlock(&t->lock);
    return found;
}
