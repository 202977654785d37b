/* mesh.h - which layers of a model each rank of TP x PP holds.
 *
 * Pipeline parallel cuts layers into stages.  Tensor parallel cuts what is within a layer, which its blocks do
 * themselves (model/layer.h).  Rank p * tp + t is member t of stage p. */
#ifndef PARALLEL_MESH_H
#define PARALLEL_MESH_H
#include "base/error.h"
#include "parallel/shard.h"

struct mesh {
    uint32_t tp, pp;   /* >= 1 */
    uint32_t n_layers; /* of the whole model */
};

/* ERR_INVALID, with the numbers: there are no ranks, or more stages than layers. */
enum status mesh_check(const struct mesh *m, struct error *err) MUST_CHECK;
uint32_t mesh_n_ranks(const struct mesh *m);
struct shard mesh_layers(const struct mesh *m, uint32_t rank); /* of a mesh that passed mesh_check(); not empty */
#endif
