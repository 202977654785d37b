/* mesh.c - cuts a model's layers over stages. */
#include "parallel/mesh.h"

enum status mesh_check(const struct mesh *m, struct error *err)
{
    if (m->tp == 0 || m->pp == 0)
        return error_set(err, ERR_INVALID, "tp is %u and pp %u, at least 1 each", m->tp, m->pp);
    if (m->pp > m->n_layers)
        return error_set(err, ERR_INVALID, "pp is %u, but the model has only %u layers", m->pp, m->n_layers);
    return OK;
}

uint32_t mesh_n_ranks(const struct mesh *m)
{
    return m->tp * m->pp;
}

struct shard mesh_layers(const struct mesh *m, uint32_t rank)
{
    return shard_units(m->n_layers, rank / m->tp, m->pp);
}
