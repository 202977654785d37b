/* recurrent_gate.c - RMSNorm of groups of columns with a SiLU gate before or after it: the end of a recurrent layer. */
#include "compute/cpu/cpu_internal.h"
#include "compute/cpu/recurrent.h"

#include <assert.h>

struct gate_run {
    const struct cpu_backend *b;
    const struct act *out;
    const float *x, *gate;
    size_t ld, gate_ld;
    const struct norm_gate_facts *facts;
};

static void gate_rows(void *arg, uint32_t row0, uint32_t row1, uint32_t member)
{
    const struct gate_run *r = arg;
    const struct norm_gate_facts *f = r->facts;
    for (uint32_t i = row0; i < row1; i++) {
        for (uint32_t c = 0; c < r->out->k; c += f->group)
            r->b->kernels->norm_gate(r->out->f + (size_t)i * r->out->k + c, r->x + i * r->ld + c,
                                     r->gate + i * r->gate_ld + c, f->w + (f->w_per_column ? c : 0), f->group, f->eps,
                                     f->gate_first);
        cpu_quantize_rows(r->b, r->out, i, i + 1, member);
    }
}

enum status cpu_norm_gate(struct backend *b, struct stream *s, struct act *out, const float *x, size_t ld,
                          const float *gate, size_t gate_ld, const struct norm_gate_facts *facts)
{
    struct gate_run run = {
        .b = cpu_of(b), .out = out, .x = x, .gate = gate, .ld = ld, .gate_ld = gate_ld, .facts = facts
    };
    if (facts->group == 0 || facts->group % 16 != 0) return ERR_UNSUPPORTED;
    assert(out->k % facts->group == 0);
    cpu_for_rows(cpu_of(b), out->n, 1, gate_rows, &run);
    return OK;
}
