/* mesh.c - cuts a model's layers and heads over ranks. */
#include "parallel/mesh.h"

enum status mesh_check(const struct mesh *m, struct error *err)
{
    if (m->tp == 0 || m->pp == 0)
        return error_set(err, ERR_INVALID, "tp is %u and pp %u, at least 1 each", m->tp, m->pp);
    if (m->n_kv_heads == 0 || m->n_heads % m->n_kv_heads != 0)
        return error_set(err, ERR_INVALID, "%u heads do not divide among %u kv heads", m->n_heads, m->n_kv_heads);
    if (m->tp > m->n_heads)
        return error_set(err, ERR_INVALID, "tp is %u, but the model has only %u heads", m->tp, m->n_heads);
    if (m->pp > m->n_layers)
        return error_set(err, ERR_INVALID, "pp is %u, but the model has only %u layers", m->pp, m->n_layers);
    return OK;
}

uint32_t mesh_n_ranks(const struct mesh *m)
{
    return m->tp * m->pp;
}

struct mesh_part mesh_part(const struct mesh *m, uint32_t rank)
{
    const uint32_t member = rank % m->tp, stage = rank / m->tp;
    struct mesh_part part = { .layers = shard_units(m->n_layers, stage, m->pp),
                              .heads = shard_units(m->n_heads, member, m->tp) };
    part.kv_heads = part.own_kv_heads = shard_kv_heads(part.heads, m->n_heads, m->n_kv_heads);
    if (member > 0) {
        const struct shard before = shard_units(m->n_heads, member - 1, m->tp);
        const uint32_t end = shard_kv_heads(before, m->n_heads, m->n_kv_heads).end;
        if (end > part.own_kv_heads.begin) part.own_kv_heads.begin = end;
    }
    return part;
}
