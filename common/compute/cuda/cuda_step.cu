/* cuda_step.cu - what a step's rows are, brought to the device in one copy. */
#include "compute/cuda/cuda_internal.h"

/* Tables of block ids are as long as sequences are, so the buffer grows with what it is asked for.  No step is under
 * way. */
static enum status reserve(struct cuda_backend *b, size_t bytes)
{
    if (bytes <= b->step_bytes) return OK;
    const size_t size = cu_align16(bytes + bytes / 2);
    void *host = NULL, *device = NULL;
    enum status st = cuda_host_alloc(&b->base, size, &host);
    if (st == OK) st = cuda_alloc(&b->base, size, &device);
    if (st != OK) {
        cuda_host_free(&b->base, host, size);
        return st;
    }
    cuda_step_fini(b);
    cuda_graphs_drop(b);
    b->step_host = (uint8_t *)host;
    b->step_device = (uint8_t *)device;
    b->step_bytes = size;
    return OK;
}

enum status cuda_step_init(struct cuda_backend *b)
{
    const size_t rows = b->limits.max_rows, blocks = b->limits.max_context / KV_BLOCK_TOKENS + 1;
    return reserve(b, rows * (16 + sizeof(struct step_seq)) + 4 * blocks * sizeof(uint32_t) + 256);
}

void cuda_step_fini(struct cuda_backend *b)
{
    cuda_host_free(&b->base, b->step_host, b->step_bytes);
    cuda_release(&b->base, b->step_device, b->step_bytes);
    b->step_host = b->step_device = NULL;
    b->step_bytes = 0;
}

/* Blocks from which a sequence is read: its own, or the window's. */
static uint32_t n_blocks_of(const struct batch_seq *seq)
{
    return (seq->pos0 + seq->n_rows + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
}

/* Where the parts of a step lie in the buffer. */
struct step_layout {
    size_t tokens, pos, seq, seqs, logits, ids, bytes;
};

static struct step_layout layout_of(const struct batch *batch)
{
    struct step_layout l = {};
    size_t n_ids = 0, at = 0;
    for (uint32_t i = 0; i < batch->n_seqs; i++)
        n_ids += (batch->seqs[i].window_blocks ? 2 : 1) * (size_t)n_blocks_of(&batch->seqs[i]);
    l.tokens = at;
    l.pos = at += cu_align16(batch->n_rows * sizeof(int32_t));
    l.seq = at += cu_align16(batch->n_rows * sizeof(uint32_t));
    l.seqs = at += cu_align16(batch->n_rows * sizeof(uint32_t));
    l.logits = at += cu_align16(batch->n_seqs * sizeof(struct step_seq));
    l.ids = at += cu_align16(batch->n_rows * sizeof(uint32_t));
    l.bytes = at + cu_align16(n_ids * sizeof(uint32_t));
    return l;
}

static const uint32_t *put_ids(struct cuda_backend *b, size_t *at, const uint32_t *ids, uint32_t n)
{
    const size_t place = *at;
    if (!ids) return NULL;
    memcpy(b->step_host + place, ids, n * sizeof(*ids));
    *at += n * sizeof(*ids);
    return (const uint32_t *)(b->step_device + place);
}

/* Fills the host's side; returns the number of logit rows. */
static uint32_t fill(struct cuda_backend *b, const struct batch *batch, const struct step_layout *l)
{
    uint8_t *host = b->step_host;
    uint32_t *pos = (uint32_t *)(host + l->pos), *seq_of = (uint32_t *)(host + l->seq);
    uint32_t *logits = (uint32_t *)(host + l->logits), n_logits = 0;
    struct step_seq *seqs = (struct step_seq *)(host + l->seqs);
    size_t ids = l->ids;
    memcpy(host + l->tokens, batch->tokens, batch->n_rows * sizeof(int32_t));
    for (uint32_t i = 0; i < batch->n_seqs; i++) {
        const struct batch_seq *seq = &batch->seqs[i];
        const uint32_t n = n_blocks_of(seq), end = seq->row0 + seq->n_rows;
        assert(end <= batch->n_rows && seq->n_logits <= seq->n_rows);
        seqs[i].row0 = seq->row0;
        seqs[i].n_rows = seq->n_rows;
        seqs[i].pos0 = seq->pos0;
        seqs[i].state = seq->state;
        seqs[i].n_blocks = n;
        seqs[i].blocks = put_ids(b, &ids, seq->blocks, n);
        seqs[i].window_blocks = put_ids(b, &ids, seq->window_blocks, n);
        for (uint32_t r = 0; r < seq->n_rows; r++) {
            pos[seq->row0 + r] = seq->pos0 + r;
            seq_of[seq->row0 + r] = i;
        }
        for (uint32_t r = end - seq->n_logits; r < end; r++) logits[n_logits++] = r;
    }
    return n_logits;
}

enum status cuda_step_begin(struct backend *backend, struct stream *s, const struct batch *batch, struct step *out)
{
    struct cuda_backend *b = cuda_of(backend);
    const struct step_layout l = layout_of(batch);
    assert(batch->n_rows <= b->limits.max_rows);
    enum status st = cuda_sync(backend, s); /* the step before may still read what is written, or grows, below */
    if (st == OK) st = reserve(b, l.bytes);
    if (st == OK) st = cuda_rope_begin(b, s, batch);
    if (st == OK) st = cuda_attention_begin(b, batch);
    if (st != OK) return st;
    const uint32_t n_logits = fill(b, batch, &l);
    uint8_t *d = b->step_device;
    b->step = step_view{ (const int32_t *)(d + l.tokens),
                         (const uint32_t *)(d + l.pos),
                         (const uint32_t *)(d + l.seq),
                         (const struct step_seq *)(d + l.seqs),
                         (const uint32_t *)(d + l.logits),
                         batch->n_rows,
                         batch->n_seqs,
                         n_logits };
    *out = step{ batch, n_logits, &b->step };
    const cudaError_t e = cudaMemcpyAsync(d, b->step_host, l.bytes, cudaMemcpyHostToDevice, cu_stream(backend, s));
    return cuda_check(backend, e, "step_begin");
}

static __global__ void gather_rows_kernel(float *out, const float *x, uint32_t k, const uint32_t *rows)
{
    const float *from = x + (size_t)rows[blockIdx.x] * k;
    float *to = out + (size_t)blockIdx.x * k;
    for (uint32_t i = threadIdx.x; i < k; i += blockDim.x) to[i] = from[i];
}

enum status cuda_gather_rows(struct backend *b, struct stream *s, float *out, const float *x, uint32_t k,
                             const struct step *step, uint32_t first, uint32_t n)
{
    const struct step_view v = step_view_of(step);
    assert(first + n <= step->n_logits);
    if (n == 0) return OK;
    return cuda_check(b, cu_launch(gather_rows_kernel, n, 256, 0, cu_stream(b, s), out, x, k, v.logit_rows + first),
                      "gather_rows");
}
