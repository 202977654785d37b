/* mesh.h - which layers and heads of a model each rank of TP x PP holds.
 *
 * Pipeline parallel cuts layers, tensor parallel cuts heads, both by shard.h.  Rank p * tp + t is member t of stage p.
 */
#ifndef PARALLEL_MESH_H
#define PARALLEL_MESH_H
#include "base/error.h"
#include "parallel/shard.h"

struct mesh {
    uint32_t tp, pp;                        /* >= 1 */
    uint32_t n_layers, n_heads, n_kv_heads; /* of the whole model; n_heads is a multiple of n_kv_heads */
};

struct mesh_part {
    struct shard layers, heads, kv_heads; /* none of them is empty */
    /* Those of kv_heads that no earlier rank of the same stage holds; may be empty.  Over all ranks each (layer, kv
     * head) is there exactly once. */
    struct shard own_kv_heads;
};

/* ERR_INVALID, with the numbers: a rank would hold nothing, or the heads do not divide. */
enum status mesh_check(const struct mesh *m, struct error *err) MUST_CHECK;
uint32_t mesh_n_ranks(const struct mesh *m);
struct mesh_part mesh_part(const struct mesh *m, uint32_t rank); /* of a mesh that passed mesh_check() */
#endif
