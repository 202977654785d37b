/* coll_self.c - the group of one rank: every sum is there already. */
#include "parallel/coll.h"

static enum status self_all_reduce(const struct coll *c, struct stream *s, float *x, size_t n)
{
    return OK;
}

static const struct coll_ops SELF_OPS = { "self", self_all_reduce };
static const struct coll SELF = { &SELF_OPS, 0, 1 };

const struct coll *coll_self(void)
{
    return &SELF;
}
