/* ranks.c - opens the ranks of one process, and shares out threads and processors. */
#include "parallel/ranks.h"

#include "base/cpus.h"
#include "base/mem.h"
#include "base/strbuf.h"
#include "parallel/coll_inproc.h"
#include "parallel/rank_team.h"
#include "parallel/shard.h"

struct ranks {
    uint32_t tp, pp, n;
    struct rank_team *team;
    struct coll_inproc *coll;
    struct backend **backends; /* [n] */
    bool owns_backends;
};

static enum status check_shape(uint32_t tp, uint32_t pp, struct error *err)
{
    if (tp >= 1 && tp <= RANKS_MAX_TP && pp >= 1 && pp <= RANKS_MAX_PP) return OK;
    return error_set(err, ERR_INVALID, "tp is %u and pp %u, allowed are 1 to %d and 1 to %d", tp, pp, RANKS_MAX_TP,
                     RANKS_MAX_PP);
}

static enum status start(struct ranks **out, uint32_t tp, uint32_t pp, struct error *err)
{
    const struct coll *groups[RANKS_MAX_TP * RANKS_MAX_PP];
    enum status st = check_shape(tp, pp, err);
    if (st != OK) return st;
    struct ranks *r = mem_zalloc(sizeof(*r));
    r->tp = tp;
    r->pp = pp;
    r->n = tp * pp;
    r->backends = mem_array(r->n, sizeof(struct backend *));
    r->coll = coll_inproc_create(tp, pp);
    for (uint32_t i = 0; i < r->n; i++) groups[i] = coll_inproc_all(r->coll, i);
    if ((st = rank_team_create(&r->team, r->n, groups, err)) != OK) {
        ranks_close(r);
        return st;
    }
    *out = r;
    return OK;
}

/* --- backends of their own --- */

struct opening {
    struct ranks *r;
    const char *name;
    const struct backend_options *all;
    struct cpu_list cpus; /* empty: none were named */
    struct error *errs;   /* [n] */
};

/* What a member of a stage has of n things in order; where there is less than one for each, they share. */
static struct shard own_part(uint32_t n, uint32_t member, uint32_t tp)
{
    if (n >= tp) return shard_units(n, member, tp);
    return (struct shard){ member % n, member % n + 1 };
}

static void write_cpus(const struct cpu_list *cpus, struct shard part, struct strbuf *out)
{
    for (uint32_t i = part.begin; i < part.end; i++) strbuf_addf(out, "%s%u", i > part.begin ? "," : "", cpus->ids[i]);
}

/* On the rank's own thread: it becomes the first of its backend's team, and is pinned as that. */
static enum status open_backend(void *ctx, uint32_t rank)
{
    const struct opening *o = ctx;
    const uint32_t member = rank % o->r->tp;
    struct backend_options own = *o->all;
    struct strbuf cpus = STRBUF_INIT;
    own.n_threads = shard_n(own_part(o->all->n_threads, member, o->r->tp));
    if (o->cpus.n > 0) {
        write_cpus(&o->cpus, own_part(o->cpus.n, member, o->r->tp), &cpus);
        own.cpus = strbuf_cstr(&cpus);
    }
    enum status st = backend_open(&o->r->backends[rank], o->name, &own, &o->errs[rank]);
    if (st == OK) coll_inproc_set_backend(o->r->coll, rank, o->r->backends[rank]);
    strbuf_fini(&cpus);
    return st;
}

enum status ranks_open(struct ranks **out, uint32_t tp, uint32_t pp, const char *backend,
                       const struct backend_options *opt, struct error *err)
{
    struct ranks *r = NULL;
    uint32_t who = 0;
    if (opt->n_threads == 0) return error_set(err, ERR_INVALID, "threads: 0 for %u ranks", tp * pp);
    enum status st = start(&r, tp, pp, err);
    if (st != OK) return st;
    r->owns_backends = true;
    struct opening o = { .r = r, .name = backend, .all = opt, .errs = mem_array(r->n, sizeof(struct error)) };
    if (opt->cpus && tp > 1 && cpu_list_parse(&o.cpus, opt->cpus) != OK)
        st = error_set(err, ERR_INVALID, "cpus \"%s\": expected a list like \"0-3,6\"", opt->cpus);
    if (st == OK && (st = rank_team_run(r->team, open_backend, &o, &who)) != OK && err) {
        *err = o.errs[who];
        if (r->n > 1) error_prefix(err, "rank %u", who);
    }
    mem_free(o.errs);
    if (st != OK) {
        ranks_close(r);
        return st;
    }
    *out = r;
    return OK;
}

enum status ranks_join(struct ranks **out, uint32_t tp, uint32_t pp, struct backend *const *backends, struct error *err)
{
    struct ranks *r = NULL;
    enum status st = start(&r, tp, pp, err);
    if (st != OK) return st;
    for (uint32_t i = 0; i < r->n; i++) {
        r->backends[i] = backends[i];
        coll_inproc_set_backend(r->coll, i, backends[i]);
    }
    *out = r;
    return OK;
}

void ranks_close(struct ranks *r)
{
    if (!r) return;
    rank_team_destroy(r->team);
    for (uint32_t i = 0; r->owns_backends && i < r->n; i++)
        if (r->backends[i]) backend_close(r->backends[i]);
    coll_inproc_destroy(r->coll);
    mem_free(r->backends);
    mem_free(r);
}

uint32_t ranks_tp(const struct ranks *r)
{
    return r->tp;
}

uint32_t ranks_pp(const struct ranks *r)
{
    return r->pp;
}

struct rank_team *ranks_team(const struct ranks *r)
{
    return r->team;
}

struct backend *ranks_backend(const struct ranks *r, uint32_t rank)
{
    return r->backends[rank];
}

const struct coll *ranks_stage(const struct ranks *r, uint32_t rank)
{
    return coll_inproc_stage(r->coll, rank);
}

const struct coll *ranks_all(const struct ranks *r, uint32_t rank)
{
    return coll_inproc_all(r->coll, rank);
}
