/* weights.h - a model's tensors: found by name, checked, and packed into one arena or streamed.
 *
 * Steps: weights_bind() checks the file and plans the arena; weights_load() packs it into private memory,
 * weights_map() maps one that weights_share() has packed, or weights_open_stream() leaves matrices on disk.  What the
 * forward reads are the pointers in here. */
#ifndef MODEL_WEIGHTS_H
#define MODEL_WEIGHTS_H
#include "base/io_read.h"
#include "model/family.h"
#include "parallel/shard.h"

struct gguf;
struct weight_item;
struct weight_stream;
struct expert_stream;

/* Which part of a model a rank has. */
struct rank_place {
    uint32_t member, tp; /* of its stage */
    uint32_t stage, pp;
    struct shard layers; /* of its stage */
};

struct weights {
    const float *final_norm;
    struct weight head;
    const struct tensor_entry *embed;
    /* Device, as the file has it.  NULL where a batch reads the few rows it needs from the file: in host memory the
     * page cache is as good a place, and streamed weights are there as well. */
    const void *embed_table;

    bool as_f32;          /* set before weights_bind(): matrices are packed dequantized */
    const struct gguf *g; /* borrowed: lives as long as the weights */
    struct backend *backend;
    uint64_t fingerprint;
    struct weight_item *items; /* what the arena holds, in order */
    uint32_t n_items, cap_items;
    uint8_t *arena; /* device, 64-byte aligned */
    size_t arena_bytes;
    void *mapping; /* of a shared arena, NULL for a private one */
    size_t mapping_bytes;
    struct weight_stream *stream;  /* matrices come through it; NULL: they are in the arena */
    struct expert_stream *experts; /* stacks of a streamed model come through it; NULL: there are none */
};

struct weights_load_options {
    enum io_kind io; /* IO_AUTO: the mapping if the file is in the page cache, else a reader */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t all_bytes); /* may be NULL */
    void *ctx;
};

/* Checks presence, type and shape of every tensor of the family, by name, and that no other is there; plans an
 * arena in `backend` (NULL: only checks) for what of it a rank at `place` has.  Fills the rows of facts->layers, which
 * the plan points into, and info's n_vocab, n_params and weight_bytes.  The caller calls weights_fini() also after a
 * failure; *w starts zeroed but for as_f32. */
enum status weights_bind(struct weights *w, struct model_facts *facts, const struct gguf *g, struct backend *backend,
                         const struct rank_place *place, struct error *err) MUST_CHECK;
/* Packs into private backend memory. */
enum status weights_load(struct weights *w, const struct weights_load_options *opt, struct error *err) MUST_CHECK;
/* Vectors into private backend memory; matrices are read from the file in each forward. */
enum status weights_open_stream(struct weights *w, const struct weights_load_options *opt,
                                struct error *err) MUST_CHECK;
/* Maps the arena in memfd `fd` read-only instead; the file descriptor stays the caller's. */
enum status weights_map(struct weights *w, int fd, struct error *err) MUST_CHECK;
/* Packs into a new sealed memfd; nothing of it stays mapped. */
enum status weights_share(struct weights *w, int *fd, const struct weights_load_options *opt,
                          struct error *err) MUST_CHECK;
/* The first stack of matrices that rows choose from, or NULL. */
const struct weight_item *weights_stack(const struct weights *w);
/* Row i of the embedding as the file has it, to dst (weights_embed_row_bytes()).  ERR_IO: the disk failed. */
enum status weights_read_embed(const struct weights *w, uint32_t i, uint8_t *dst) MUST_CHECK;
size_t weights_embed_row_bytes(const struct weights *w);
void weights_fini(struct weights *w);
#endif
