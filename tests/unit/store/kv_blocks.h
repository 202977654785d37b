/* kv_blocks.h - KV memory of plain bytes over a backend that copies; for tests of what moves whole blocks. */
#ifndef UNIT_STORE_KV_BLOCKS_H
#define UNIT_STORE_KV_BLOCKS_H
#include "kv/kv_pool.h"
#include "store/kv_store.h"

#include <criterion/criterion.h>
#include <string.h>

#define LAYERS      3
#define BLOCKS      8
#define SLICE       192
#define BLOCK_BYTES (LAYERS * SLICE + 64) /* the second layer's slices are larger */

static uint8_t *last_copy; /* where a block's last slice went */

static enum status copy(struct backend *b, struct stream *s, void *dst, const void *src, size_t bytes)
{
    last_copy = dst;
    memcpy(dst, src, bytes);
    return OK;
}

static enum status sync_nothing(struct backend *b, struct stream *s)
{
    return OK;
}

static const struct backend_ops OPS = { .name = "cpu", .upload = copy, .download = copy, .sync = sync_nothing };
static struct backend backend = { &OPS, { .host_memory = true } };
static uint8_t memory[LAYERS][BLOCKS * (SLICE + 64)];
static struct kv_slices slices[LAYERS] = { { .base = memory[0], .stride = SLICE, .slice_bytes = SLICE },
                                           { .base = memory[1], .stride = SLICE + 64, .slice_bytes = SLICE + 64 },
                                           { .base = memory[2], .stride = SLICE, .slice_bytes = SLICE } };
static const struct kv_store kv = { .n_layers = LAYERS,
                                    .n_blocks = BLOCKS,
                                    .layers = slices,
                                    .memory = memory[0],
                                    .bytes = sizeof(memory),
                                    .backend = &backend };

static uint8_t byte_of(uint32_t content, uint32_t layer, size_t i)
{
    return (uint8_t)(content * 31 + layer * 7 + i + i / 251);
}

static void fill(kv_block_id block, uint32_t content)
{
    for (uint32_t l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < slices[l].slice_bytes; i++)
            slices[l].base[block * slices[l].stride + i] = byte_of(content, l, i);
}

static void expect_content(kv_block_id block, uint32_t content)
{
    for (uint32_t l = 0; l < LAYERS; l++)
        for (size_t i = 0; i < slices[l].slice_bytes; i++)
            cr_assert_eq(slices[l].base[block * slices[l].stride + i], byte_of(content, l, i),
                         "content %u layer %u byte %zu", content, l, i);
}
#endif
