/* recurrent_backend.h - makes every model on a CPU backend a recurrent one, for tests of what keeps and moves states.
 *
 * Each sequence has a state of fp32 in its slot that every token turns into another one, and that is added to the
 * token's embedding.  So an answer depends on every token before: a state that is lost, old or of another sequence
 * changes it. */
#ifndef HELPERS_RECURRENT_BACKEND_H
#define HELPERS_RECURRENT_BACKEND_H
#include "store/kv_store.h"
#include "store/state_store.h"

/* Changes `cpu`'s ops in place; all backends of a process have the same ones. */
void recurrent_backend_install(struct backend *cpu);
/* Gives `kv`, which is of such a backend, states in n_slots slots, in some of its layers; the backend's model has them
 * from then on. */
void recurrent_backend_states(struct kv_store *kv, uint32_t n_slots);
#endif
