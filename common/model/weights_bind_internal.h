/* weights_bind_internal.h - the binder: one file's tensors on their way into the plan. */
#ifndef MODEL_WEIGHTS_BIND_INTERNAL_H
#define MODEL_WEIGHTS_BIND_INTERNAL_H
#include "model/weights_bind.h"
#include "model/weights_plan.h"

#define NO_LAYER UINT32_MAX

struct binder {
    struct weights *w;
    struct model_facts *facts;
    const struct tensor_dir *dir;
    struct error *err;
    const struct rank_place *place;
    uint32_t layer; /* whose tensors names are of, or NO_LAYER */
    bool elsewhere; /* another stage has them: they are checked alone */
    uint64_t n_bound;
    bool *bound; /* [dir->n] */
};

/* The tensor `name`, counted as known; NULL if it is not there. */
const struct tensor_entry *binder_find(struct binder *b, const char *name);
/* The tensor `name` of exactly n_rows x n_cols. */
enum status binder_need(struct binder *b, const char *name, uint64_t n_cols, uint64_t n_rows,
                        const struct tensor_entry **out) MUST_CHECK;
/* n of them, one after the other. */
enum status binder_need_stack(struct binder *b, const char *name, uint64_t n_cols, uint64_t n_rows, uint64_t n,
                              const struct tensor_entry **out) MUST_CHECK;
/* An item of the plan gets its place. */
enum status binder_add(struct binder *b, struct weight_item item) MUST_CHECK;
/* A tensor that nothing reads means a forward that is not this one: wrong tokens, not an error. */
enum status binder_refuse_unbound(const struct binder *b) MUST_CHECK;
#endif
