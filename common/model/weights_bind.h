/* weights_bind.h - how blocks find their tensors: by name, of the shape that they must have, into a plan.
 *
 * Names are those of the layer that is being bound, without "blk.N."; each tensor that is found counts as known. An
 * error names the tensor, what it is and what it must be.  `out` is filled when the weights have their address. */
#ifndef MODEL_WEIGHTS_BIND_H
#define MODEL_WEIGHTS_BIND_H
#include "model/family.h"
#include "model/weight_group.h"
#include "parallel/shard.h"

struct binder;

/* Rows of a tensor: n_rows of them in runs of `run`, the first at row0 and the others `stride` rows apart. */
struct bind_part {
    const char *name;
    uint32_t tensor_rows; /* that the tensor must have */
    uint32_t row0, n_rows, run, stride;
};

static inline struct bind_part bind_whole(const char *name, uint32_t n_rows)
{
    return (struct bind_part){ name, n_rows, 0, n_rows, n_rows, n_rows };
}

/* Rows [row0, row0 + n_rows) of a tensor of tensor_rows. */
static inline struct bind_part bind_rows(const char *name, uint32_t tensor_rows, uint32_t row0, uint32_t n_rows)
{
    return (struct bind_part){ name, tensor_rows, row0, n_rows, n_rows, n_rows };
}

static inline struct bind_part bind_runs(const char *name, uint32_t tensor_rows, uint32_t row0, uint32_t n_rows,
                                         uint32_t run, uint32_t stride)
{
    return (struct bind_part){ name, tensor_rows, row0, n_rows, run, stride };
}

/* A rank's units of a tensor's, each `width` rows wide; before the first of them lie `before` other rows. */
static inline struct bind_part bind_units(const char *name, uint32_t tensor_rows, uint32_t before,
                                          struct shard_runs units, uint32_t width)
{
    const struct shard_runs r = shard_widen(units, width, before);
    return bind_runs(name, tensor_rows, r.begin, r.n, r.run, r.stride);
}

uint32_t bind_d_model(const struct binder *b);
struct shard bind_back_rows(const struct binder *b); /* of the model's width, that this rank computes */
bool bind_has(const struct binder *b, const char *name);
/* Floats, whatever the file's type: [n_rows][n_cols]. */
enum status bind_vector(struct binder *b, const char *name, uint32_t n_cols, uint32_t n_rows,
                        const float **out) MUST_CHECK;
/* Rows of one tensor of n_cols columns, part after part, stored turned: [n_cols][rows]. */
enum status bind_turned_vector(struct binder *b, const struct bind_part parts[], uint32_t n, uint32_t n_cols,
                               const float **out) MUST_CHECK;
/* Vectors one after the other; a part's rows are its elements. */
enum status bind_vectors(struct binder *b, const struct bind_part parts[], uint32_t n, const float **out) MUST_CHECK;
enum status bind_matrix(struct binder *b, const char *name, uint32_t n_cols, uint32_t n_rows, enum precision precision,
                        struct weight *out) MUST_CHECK;
enum status bind_part(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                      struct weight *out) MUST_CHECK;
/* A block's last matrix, from n_cols back to the model's width, and its bias: the rank's rows of it (project_back()).
 */
enum status bind_back(struct binder *b, const char *name, uint32_t n_cols, enum precision precision,
                      struct weight *out) MUST_CHECK;
enum status bind_back_bias(struct binder *b, const char *name, const float **out) MUST_CHECK;
/* Of a tensor of n matrices, those from `first` on, `own` of them; of each, n_rows of its tensor_rows from row0 on. */
struct bind_stack {
    const char *name;
    uint32_t n, first, own;
    uint32_t tensor_rows, row0, n_rows;
    uint32_t used; /* by a row; 0: all of them */
};
enum status bind_experts(struct binder *b, const struct bind_stack *stack, uint32_t n_cols, enum precision precision,
                         struct weight *out) MUST_CHECK;
/* Elements of each of `n` vectors of a tensor, [n][n_elems]. */
enum status bind_vector_stack(struct binder *b, const struct bind_stack *stack, const float **out) MUST_CHECK;
/* A matrix per run of a part: matrix i is run i.  Turned: its transpose, in fp32. */
enum status bind_runs_apart(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                            struct weight *out) MUST_CHECK;
enum status bind_turned_runs(struct binder *b, const struct bind_part *part, uint32_t n_cols, enum precision precision,
                             struct weight *out) MUST_CHECK;
/* At most WEIGHT_GROUP_MAX matrices over one input.  Neighbours of one type are packed as one: an output row does not
 * depend on its neighbours, so the numbers are the same. */
enum status bind_group(struct binder *b, const struct bind_part parts[], uint32_t n, uint32_t n_cols,
                       enum precision precision, struct weight_group *out) MUST_CHECK;
#endif
