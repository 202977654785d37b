/* weight_stream: weights read from disk in each forward give the bits of weights in memory, or an error. */
#include "model/weight_stream.h"
#include "base/mem.h"
#include "helpers/gguf_cut.h"
#include "helpers/tiny_model.h"
#include "model/model_internal.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ROWS 128

struct rig {
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
};

static enum status rig_open(struct rig *r, const char *path, enum weights_mode weights, enum io_kind io,
                            struct error *err)
{
    struct model_info info;
    cr_assert_eq(model_read_info(&info, path, err), OK, "%s", err->text);
    struct backend_limits lim = model_limits(&info, ROWS, info.context_length);
    cr_assert_eq(backend_open(&r->backend, "cpu", &(struct backend_options){ .n_threads = 2, .limits = lim }, err), OK,
                 "%s", err->text);
    struct model_options opt = {
        .path = path, .backend = r->backend, .max_batch_tokens = ROWS, .weights_fd = -1, .weights = weights, .io = io
    };
    enum status st = model_open(&r->model, &opt, err);
    if (st == OK) cr_assert_eq(model_kv_create(&r->kv, r->model, 8, err), OK, "%s", err->text);
    if (st == OK && model_state_bytes(r->model) > 0)
        cr_assert_eq(model_states_create(r->kv, r->model, 2, err), OK, "%s", err->text);
    return st;
}

static void rig_close(struct rig *r)
{
    kv_store_destroy(r->kv);
    model_close(r->model);
    backend_close(r->backend);
    *r = (struct rig){ 0 };
}

/* A prompt of n tokens, logits of its last row if asked. */
static enum status forward(struct rig *r, uint32_t n, float **logits)
{
    static const uint32_t blocks[] = { 0, 1, 2, 3 };
    int32_t tokens[ROWS];
    for (uint32_t i = 0; i < n; i++) tokens[i] = (int32_t)((i * 37u + 5u) % model_info(r->model)->n_vocab);
    struct batch_seq seq = { 0, n, 0, blocks, 4, .n_logits = 1 };
    struct batch b = { n, tokens, &seq, 1 };
    enum status st = model_forward(r->model, &b, r->kv, NULL, NULL);
    return st == OK && logits ? model_logits(r->model, 0, 1, logits) : st;
}

/* Passes with and without the head, twice over the same weights. */
static void expect_same(const char *path, enum io_kind io)
{
    struct rig memory = { 0 }, disk = { 0 };
    struct error err = { 0 };
    float *want, *got;
    cr_assert_eq(rig_open(&memory, path, WEIGHTS_RESIDENT, IO_AUTO, &err), OK, "%s", err.text);
    cr_assert_eq(rig_open(&disk, path, WEIGHTS_STREAM, io, &err), OK, "%s", err.text);
    cr_assert(model_is_streamed(disk.model) && !model_is_streamed(memory.model));
    uint32_t n_vocab = model_info(disk.model)->n_vocab;
    for (uint32_t i = 0; i < 6; i++) {
        uint32_t n = 1 + i * 20;
        bool head = i % 3 != 1;
        cr_assert_eq(forward(&memory, n, head ? &want : NULL), OK);
        cr_assert_eq(forward(&disk, n, head ? &got : NULL), OK);
        if (head) cr_assert_eq(memcmp(want, got, n_vocab * sizeof(float)), 0, "pass %u", i);
    }
    rig_close(&memory);
    rig_close(&disk);
}

Test(weight_stream, gives_the_bits_of_resident_weights)
{
    static const struct {
        uint32_t type, v_type, n_vocab;
        bool tied, bias;
    } CASES[] = {
        { DTYPE_F32, DTYPE_F32, 160, false, false },
        { DTYPE_Q8_0, DTYPE_F32, 160, true, true },
        { DTYPE_F32, DTYPE_F32, 40000, false, false }, /* a head of three pieces */
        { DTYPE_Q8_0, DTYPE_Q8_0, 35007, true, false },
    };
    for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
        struct tiny_options o = tiny_defaults();
        o.type = CASES[i].type;
        o.v_type = CASES[i].v_type;
        o.n_vocab = CASES[i].n_vocab;
        o.tied = CASES[i].tied;
        o.bias = CASES[i].bias;
        char *path = tiny_write(&o);
        expect_same(path, IO_AUTO);
        expect_same(path, IO_PREAD);
        tiny_remove(path);
    }
}

/* Parts of fused tensors, gathered rows, turned vectors, layers without KV, experts. */
Test(weight_stream, gives_the_bits_of_every_family)
{
    static const char *const NAMES[] = { "qwen3",   "gemma3",  "phi3",           "qwen35",    "mamba2",
                                         "mixtral", "gpt-oss", "deepseek2-lite", "deepseek2", "qwen35moe" };
    char path[256];
    for (size_t i = 0; i < sizeof(NAMES) / sizeof(NAMES[0]); i++) {
        snprintf(path, sizeof(path), TEST_DATA "/golden/families/%s.q.gguf", NAMES[i]);
        expect_same(path, IO_AUTO);
    }
}

/* Reads of parts that lie side by side in the ring. */
Test(weight_stream, reads_the_parts_of_a_split_model)
{
    struct tiny_options o = tiny_defaults();
    o.n_vocab = 40000;
    char *path = tiny_write(&o), *first = gguf_cut(path, 3);
    float *want = mem_array(o.n_vocab, sizeof(float)), *got;
    struct rig r = { 0 };
    struct error err = { 0 };
    cr_assert_eq(rig_open(&r, path, WEIGHTS_RESIDENT, IO_AUTO, &err), OK, "%s", err.text);
    cr_assert_eq(forward(&r, 30, &got), OK);
    memcpy(want, got, o.n_vocab * sizeof(float));
    rig_close(&r);
    for (int way = 0; way < 4; way++) {
        enum weights_mode mode = way < 2 ? WEIGHTS_RESIDENT : WEIGHTS_STREAM;
        enum io_kind io = way == 0 ? IO_MMAP : way == 1 ? IO_PREAD : way == 2 ? IO_AUTO : IO_PREAD;
        cr_assert_eq(rig_open(&r, first, mode, io, &err), OK, "%s", err.text);
        cr_assert_eq(forward(&r, 30, &got), OK);
        cr_assert_eq(memcmp(want, got, o.n_vocab * sizeof(float)), 0, "way %d", way);
        rig_close(&r);
    }
    mem_free(want);
    gguf_cut_remove(first, 3);
    tiny_remove(path);
}

Test(weight_stream, loading_is_the_same_in_every_way)
{
    static const enum io_kind KINDS[] = { IO_MMAP, IO_PREAD, IO_URING };
    struct tiny_options o = tiny_defaults();
    o.n_vocab = 40000;
    char *path = tiny_write(&o);
    float *first = NULL, *logits;
    for (int k = 0; k < 3; k++) {
        struct rig r = { 0 };
        struct error err = { 0 };
        enum status st = rig_open(&r, path, WEIGHTS_RESIDENT, KINDS[k], &err);
        if (st == ERR_UNSUPPORTED && KINDS[k] == IO_URING) continue; /* not to be had here */
        cr_assert_eq(st, OK, "%s", err.text);
        cr_assert_eq(forward(&r, 30, &logits), OK);
        if (!first) {
            first = mem_array(o.n_vocab, sizeof(float));
            memcpy(first, logits, o.n_vocab * sizeof(float));
        }
        cr_assert_eq(memcmp(first, logits, o.n_vocab * sizeof(float)), 0, "way %d", k);
        rig_close(&r);
    }
    mem_free(first);
    tiny_remove(path);
}

Test(weight_stream, a_file_that_changes_gives_an_error_and_no_tokens)
{
    struct tiny_options o = tiny_defaults();
    char *path = tiny_write(&o);
    struct rig r = { 0 };
    struct error err = { 0 };
    struct stat sb;
    float *logits;
    cr_assert_eq(rig_open(&r, path, WEIGHTS_STREAM, IO_AUTO, &err), OK, "%s", err.text);
    cr_assert_eq(forward(&r, 10, &logits), OK);
    /* As long as it was, but written to: the same time stamp makes it the opened file again. */
    cr_assert_eq(stat(path, &sb), 0);
    struct timespec other[2] = { sb.st_atim, { sb.st_mtim.tv_sec - 7, 0 } }, same[2] = { sb.st_atim, sb.st_mtim };
    cr_assert_eq(utimensat(AT_FDCWD, path, other, 0), 0);
    cr_assert_eq(forward(&r, 10, &logits), ERR_CORRUPT);
    cr_assert_eq(utimensat(AT_FDCWD, path, same, 0), 0);
    cr_assert_eq(forward(&r, 10, &logits), OK);
    cr_assert_eq(truncate(path, sb.st_size / 2), 0);
    enum status st = forward(&r, 10, &logits);
    cr_assert(st == ERR_CORRUPT || st == ERR_IO, "%d", st);
    rig_close(&r);
    tiny_remove(path);
}

static _Atomic int n_good_reads; /* then one that fails */

static ssize_t failing_pread(int fd, void *buf, size_t n, off_t at)
{
    if (n_good_reads-- != 0) return pread(fd, buf, n, at);
    errno = EIO;
    return -1;
}

Test(weight_stream, a_disk_error_fails_that_forward_and_no_other)
{
    struct tiny_options o = tiny_defaults();
    char *path = tiny_write(&o);
    struct rig r = { 0 };
    struct error err = { 0 };
    float *logits, *want = mem_array(o.n_vocab, sizeof(float));
    const struct io_options io = { .kind = IO_PREAD, .pread = failing_pread };
    cr_assert_eq(rig_open(&r, path, WEIGHTS_STREAM, IO_AUTO, &err), OK, "%s", err.text);
    cr_assert_eq(forward(&r, 10, &logits), OK);
    memcpy(want, logits, o.n_vocab * sizeof(float));
    for (int good = 0; good < 9; good++) { /* two layers of four matrices, and the head */
        weight_stream_destroy(r.model->ranks[0].weights.stream);
        r.model->ranks[0].weights.stream = NULL;
        n_good_reads = good;
        cr_assert_eq(weight_stream_create(&r.model->ranks[0].weights.stream, &r.model->ranks[0].weights, &io, &err),
                     OK);
        cr_assert_eq(forward(&r, 10, &logits), ERR_IO, "read %d", good);
        cr_assert_eq(forward(&r, 10, &logits), OK);
        cr_assert_eq(memcmp(want, logits, o.n_vocab * sizeof(float)), 0);
    }
    mem_free(want);
    rig_close(&r);
    tiny_remove(path);
}

Test(weight_stream, refuses_a_mapping)
{
    struct tiny_options o = tiny_defaults();
    char *path = tiny_write(&o);
    struct rig r = { 0 };
    struct error err = { 0 };
    cr_assert_eq(rig_open(&r, path, WEIGHTS_STREAM, IO_MMAP, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "cannot be streamed through a mapping"), "%s", err.text);
    rig_close(&r);
    tiny_remove(path);
}
