/* recurrent.h - the CPU's ops of recurrent layers; contracts in compute/backend.h. */
#ifndef COMPUTE_CPU_RECURRENT_H
#define COMPUTE_CPU_RECURRENT_H
#include "compute/backend.h"

enum status cpu_conv_step(struct backend *b, struct stream *s, float *out, size_t out_ld, const float *x, size_t ld,
                          const struct conv_facts *facts, const struct state_slices *tail, const struct step *step);
enum status cpu_delta_rule(struct backend *b, struct stream *s, float *out, size_t out_ld,
                           const struct delta_inputs *in, const struct delta_facts *facts,
                           const struct state_slices *state, const struct step *step);
enum status cpu_mamba2_scan(struct backend *b, struct stream *s, float *out, size_t out_ld,
                            const struct mamba2_inputs *in, const struct mamba2_facts *facts,
                            const struct state_slices *state, const struct step *step);
enum status cpu_norm_gate(struct backend *b, struct stream *s, struct act *out, const float *x, size_t ld,
                          const float *gate, size_t gate_ld, const struct norm_gate_facts *facts);
#endif
