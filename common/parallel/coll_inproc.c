/* coll_inproc.c - barriers, gathers and hand-overs between threads that sleep while they wait.
 *
 * A call that all ranks share is: say what you give, meet, read what the others gave.  `round` counts the meetings and
 * is what a rank sleeps on.  Who is through may begin the next call while others still read: that is why a buffer
 * stays as it is until its rank's next call, and why `given` has two places, taken in turn.  Nobody can be two calls
 * ahead, as the meeting between them takes all.
 *
 * A channel's word is odd while something lies in it.  An abort raises all words by two, which wakes their sleepers
 * and keeps what is odd odd. */
#include "parallel/coll_inproc.h"

#include "base/futex.h"
#include "base/mem.h"
#include "compute/backend.h"

#include <assert.h>
#include <string.h>

struct channel { /* from one rank to another */
    _Alignas(64) _Atomic uint32_t word;
    const void *p; /* of who sends, while the word is odd */
    size_t bytes;
};

struct group {
    _Alignas(64) _Atomic uint32_t arrived; /* of the meeting that is under way */
    _Alignas(64) _Atomic uint32_t round;
    uint32_t size;
    struct channel *channels; /* owned; [size][size], from and to */
    void *allocation;         /* theirs */
    _Atomic uint32_t *failed; /* of all groups: why they were aborted, or OK */
};

struct member {
    struct coll coll; /* first: a struct coll is a struct member */
    struct coll_inproc *all;
    struct group *group;
    struct member *peers; /* [size], of the group */
    struct backend *backend;
    struct gift {
        void *p;
        size_t row_bytes;
    } given[2];
    uint32_t n_calls; /* which place of `given` is next; touched by its own rank, and by revive() */
};

struct coll_inproc {
    uint32_t tp, pp;
    _Atomic uint32_t failed;
    struct group *groups; /* [pp + 1]: of each stage, then of all */
    void *allocation;     /* theirs */
    struct member *stage, *world;
};

/* --- waiting --- */

static enum status failure(const struct group *g)
{
    return (enum status)atomic_load(g->failed);
}

/* Sleeps until *word is not `seen`, or until somebody has given up. */
static enum status sleep_until(const struct group *g, _Atomic uint32_t *word, uint32_t seen)
{
    while (atomic_load(word) == seen) {
        if (failure(g) != OK) return failure(g);
        futex_wait(word, seen); /* an abort changes the word after `failed`: it is not slept through */
    }
    return failure(g);
}

/* All ranks of the group have come when it returns OK. */
static enum status meet(struct group *g)
{
    if (failure(g) != OK) return failure(g);
    const uint32_t round = atomic_load(&g->round);
    if (atomic_fetch_add(&g->arrived, 1) + 1 < g->size) return sleep_until(g, &g->round, round);
    atomic_store(&g->arrived, 0);
    atomic_fetch_add(&g->round, 1);
    futex_wake_all(&g->round);
    return failure(g);
}

static struct member *member_of(const struct coll *c)
{
    return (struct member *)(uintptr_t)c; /* made writable, as it was made */
}

/* What others read has been computed. */
static enum status settle(const struct member *m, struct stream *s)
{
    return m->backend ? m->backend->ops->sync(m->backend, s) : OK;
}

/* Gives p and meets the others; *turn says where theirs lie. */
static enum status give_rows(struct member *m, struct stream *s, const void *p, size_t row_bytes, uint32_t *turn)
{
    enum status st = settle(m, s);
    if (st != OK) return st;
    *turn = m->n_calls++ % 2;
    m->given[*turn] = (struct gift){ (void *)(uintptr_t)p, row_bytes };
    return meet(m->group);
}

static enum status give(struct member *m, struct stream *s, const void *p, uint32_t *turn)
{
    return give_rows(m, s, p, 0, turn);
}

/* --- calls of all ranks --- */

/* In the stream, which is waited for before the next meeting: what is read stays as it is until then. */
static enum status copy(const struct member *m, struct stream *s, void *to, const void *from, size_t n)
{
    if (n == 0) return OK;
    if (m->backend) return m->backend->ops->copy(m->backend, s, to, from, n);
    memcpy(to, from, n);
    return OK;
}

static enum status copy_columns(const struct member *m, struct stream *s, uint8_t *to, const struct gift *from,
                                const struct coll_columns *x, uint32_t rank)
{
    const size_t begin = x->begin[rank], n = x->begin[rank + 1] - begin;
    enum status st = OK;
    for (size_t i = 0; i < x->n_rows && n > 0 && st == OK; i++)
        st = copy(m, s, to + i * x->row_bytes + begin, (const uint8_t *)from->p + i * from->row_bytes, n);
    return st;
}

static enum status inproc_all_gather(const struct coll *c, struct stream *s, void *x, const void *mine,
                                     size_t mine_row_bytes, const struct coll_columns *columns)
{
    struct member *m = member_of(c);
    uint32_t turn;
    enum status st = give_rows(m, s, mine, mine_row_bytes, &turn);
    for (uint32_t r = 0; x && r < c->size && st == OK; r++)
        if (r != c->rank || mine != (uint8_t *)x + columns->begin[r])
            st = copy_columns(m, s, x, &m->peers[r].given[turn], columns, r);
    return st;
}

static enum status inproc_broadcast(const struct coll *c, struct stream *s, void *p, size_t bytes, uint32_t root)
{
    struct member *m = member_of(c);
    uint32_t turn;
    assert(root < c->size);
    if (c->size == 1) return OK;
    enum status st = give(m, s, p, &turn);
    return st == OK && c->rank != root ? copy(m, s, p, m->peers[root].given[turn].p, bytes) : st;
}

static size_t slice_of(size_t n, uint32_t rank, uint32_t size)
{
    return n / size * rank + n % size * rank / size;
}

/* Each rank adds up a slice where its own part of it lies; then all read the others' slices. */
static enum status inproc_all_reduce(const struct coll *c, struct stream *s, float *x, size_t n)
{
    struct member *m = member_of(c);
    uint32_t turn;
    if (c->size == 1) return OK;
    assert(!m->backend || m->backend->caps.host_memory); /* it adds up right here */
    enum status st = give(m, s, x, &turn);
    if (st != OK) return st;
    for (size_t i = slice_of(n, c->rank, c->size); i < slice_of(n, c->rank + 1, c->size); i++) {
        float sum = 0.0f;
        for (uint32_t r = 0; r < c->size; r++) {
            const float v = ((const float *)m->peers[r].given[turn].p)[i];
            sum = r == 0 ? v : sum + v;
        }
        x[i] = sum;
    }
    if ((st = give(m, s, x, &turn)) != OK) return st;
    for (uint32_t r = 0; r < c->size; r++) {
        const size_t begin = slice_of(n, r, c->size), end = slice_of(n, r + 1, c->size);
        if (r != c->rank && end > begin)
            memcpy(x + begin, (const float *)m->peers[r].given[turn].p + begin, (end - begin) * sizeof(float));
    }
    return OK;
}

/* --- from one rank to another --- */

static struct channel *channel_of(const struct member *m, uint32_t from, uint32_t to)
{
    assert(from < m->coll.size && to < m->coll.size && from != to);
    return &m->group->channels[from * m->coll.size + to];
}

static enum status inproc_send(const struct coll *c, struct stream *s, const void *p, size_t bytes, uint32_t to)
{
    const struct member *m = member_of(c);
    struct channel *ch = channel_of(m, c->rank, to);
    enum status st = settle(m, s);
    if (st != OK || (st = failure(m->group)) != OK) return st;
    ch->p = p;
    ch->bytes = bytes;
    const uint32_t full = atomic_fetch_add(&ch->word, 1) + 1;
    futex_wake_all(&ch->word);
    return sleep_until(m->group, &ch->word, full);
}

static enum status inproc_recv(const struct coll *c, struct stream *s, void *p, size_t bytes, uint32_t from)
{
    const struct member *m = member_of(c);
    struct channel *ch = channel_of(m, from, c->rank);
    enum status st = settle(m, s); /* of what reads p */
    if (st != OK || (st = failure(m->group)) != OK) return st;
    for (uint32_t word; (word = atomic_load(&ch->word)) % 2 == 0;)
        if ((st = sleep_until(m->group, &ch->word, word)) != OK) return st;
    assert(ch->bytes == bytes && "the two ranks do not run the same step");
    st = copy(m, s, p, ch->p, bytes);
    if (st == OK) st = settle(m, s);
    if (st != OK) return st;
    atomic_fetch_add(&ch->word, 1);
    futex_wake_all(&ch->word);
    return failure(m->group);
}

/* --- giving up --- */

static void wake_group(struct group *g)
{
    atomic_fetch_add(&g->round, 1);
    futex_wake_all(&g->round);
    for (uint32_t i = 0; i < g->size * g->size; i++) {
        atomic_fetch_add(&g->channels[i].word, 2);
        futex_wake_all(&g->channels[i].word);
    }
}

static void inproc_abort(const struct coll *c, enum status why)
{
    struct coll_inproc *all = member_of(c)->all;
    uint32_t none = OK;
    assert(why != OK);
    if (!atomic_compare_exchange_strong(&all->failed, &none, (uint32_t)why)) return;
    for (uint32_t i = 0; i <= all->pp; i++) wake_group(&all->groups[i]);
}

static void inproc_revive(const struct coll *c)
{
    struct coll_inproc *all = member_of(c)->all;
    for (uint32_t i = 0; i <= all->pp; i++) {
        struct group *g = &all->groups[i];
        atomic_store(&g->arrived, 0);
        for (uint32_t j = 0; j < g->size * g->size; j++)
            atomic_store(&g->channels[j].word, atomic_load(&g->channels[j].word) & ~1u);
    }
    for (uint32_t r = 0; r < all->tp * all->pp; r++) all->stage[r].n_calls = all->world[r].n_calls = 0;
    atomic_store(&all->failed, OK);
}

static const struct coll_ops INPROC_OPS = { "inproc",    inproc_all_reduce, inproc_all_gather, inproc_broadcast,
                                            inproc_send, inproc_recv,       inproc_abort,      inproc_revive };

/* --- life --- */

/* n zeroed elements on lines of their own. */
static void *lines(size_t n, size_t elem_bytes, void **allocation)
{
    *allocation = mem_zalloc(n * elem_bytes + 63);
    return (void *)(((uintptr_t)*allocation + 63) & ~(uintptr_t)63);
}

static void init_group(struct coll_inproc *m, struct group *g, struct member *members, uint32_t size)
{
    g->size = size;
    g->failed = &m->failed;
    g->channels = lines((size_t)size * size, sizeof(*g->channels), &g->allocation);
    for (uint32_t i = 0; i < size; i++)
        members[i] = (struct member){ .coll = { &INPROC_OPS, i, size }, .all = m, .group = g, .peers = members };
}

struct coll_inproc *coll_inproc_create(uint32_t tp, uint32_t pp)
{
    const uint32_t n = tp * pp;
    assert(tp > 0 && pp > 0);
    struct coll_inproc *m = mem_zalloc(sizeof(*m));
    m->tp = tp;
    m->pp = pp;
    m->groups = lines(pp + 1, sizeof(*m->groups), &m->allocation);
    m->stage = mem_array(n, sizeof(*m->stage));
    m->world = mem_array(n, sizeof(*m->world));
    for (uint32_t p = 0; p < pp; p++) init_group(m, &m->groups[p], m->stage + (size_t)p * tp, tp);
    init_group(m, &m->groups[pp], m->world, n);
    return m;
}

void coll_inproc_destroy(struct coll_inproc *m)
{
    if (!m) return;
    for (uint32_t i = 0; i <= m->pp; i++) mem_free(m->groups[i].allocation);
    mem_free(m->allocation);
    mem_free(m->stage);
    mem_free(m->world);
    mem_free(m);
}

void coll_inproc_set_backend(struct coll_inproc *m, uint32_t rank, struct backend *b)
{
    assert(rank < m->tp * m->pp);
    m->stage[rank].backend = m->world[rank].backend = b;
}

const struct coll *coll_inproc_stage(const struct coll_inproc *m, uint32_t rank)
{
    assert(rank < m->tp * m->pp);
    return &m->stage[rank].coll;
}

const struct coll *coll_inproc_all(const struct coll_inproc *m, uint32_t rank)
{
    assert(rank < m->tp * m->pp);
    return &m->world[rank].coll;
}
