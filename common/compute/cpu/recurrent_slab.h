/* recurrent_slab.h - what the kernels of recurrent layers are handed. */
#ifndef COMPUTE_CPU_RECURRENT_SLAB_H
#define COMPUTE_CPU_RECURRENT_SLAB_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONV_MAX_KERNEL 16

/* One row of a convolution from some channel on: tap j's 16 channels i are at tap[j] + i * tap_step[j]. */
struct conv_row {
    const float *tap[CONV_MAX_KERNEL];
    size_t tap_step[CONV_MAX_KERNEL];
    const float *w; /* rows of w_ld */
    size_t w_ld;
    const float *bias; /* or NULL */
    uint32_t kernel;
    bool silu;
};

/* Some columns of one head over all rows of a sequence; rows are *_ld floats apart. */
struct delta_slab {
    float *s;                  /* [n_vecs][keys][16] */
    const float *q, *k, *v;    /* q and k of the head as they shall be, v from the first column on */
    const float *alpha, *beta; /* a float a row */
    float dt_bias, a;          /* of the head */
    float *out;                /* from the first column on */
    size_t ld, alpha_ld, beta_ld, out_ld;
    uint32_t keys, n_vecs, n_rows;
};

struct mamba2_slab {
    float *s;               /* [n_vecs][rows][16] */
    const float *x, *b, *c; /* x from the first column on, b and c of the head's group */
    const float *dt;        /* a float a row */
    float dt_bias, a, d;    /* of the head */
    float *out;             /* from the first column on */
    size_t ld, dt_ld, out_ld;
    uint32_t rows, n_vecs, n_rows;
};
#endif
