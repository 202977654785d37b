/* head_map.h - which ranks of a stage hold which of a layer's heads, and which of them gives each out. */
#ifndef STORE_HEAD_MAP_H
#define STORE_HEAD_MAP_H
#include "base/error.h"
#include "parallel/held.h"

#include <stdbool.h>

/* Heads [head, head + n) of the model, which are the rank's own [local, local + n). */
struct head_span {
    uint32_t rank, local, head, n;
    bool owned; /* no earlier rank holds them: this one gives them out, all that hold them take them in */
};

struct head_map {
    uint32_t n_heads; /* of the model */
    uint32_t n;
    struct head_span *spans; /* [n], by rank */
};

/* held[n_ranks]: of the ranks rank0, rank0 + 1, ... of a stage.  ERR_INVALID, with the numbers: they are not of one
 * layer, or leave a head out.  The caller owns *out, also after a failure. */
enum status head_map_make(struct head_map *out, uint32_t rank0, uint32_t n_ranks, const struct held *const held[],
                          struct error *err) MUST_CHECK;
void head_map_fini(struct head_map *m);
#endif
