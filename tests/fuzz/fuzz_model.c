/* fuzz_model.c - takes any bytes for the head of a model's file: its facts are read, and what opens answers a token.
 *
 * The tensors' data is not part of the input.  One byte's repetition follows it, which is a positive number in every
 * type; so a seed is small, and a model of any family opens. */
#include "base/log.h"
#include "compute/backend.h"
#include "model/model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DATA_BYTES (1u << 20)
#define ROWS       4
#define CONTEXT    64

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static int file_of(const uint8_t *data, size_t n)
{
    static uint8_t rest[DATA_BYTES];
    int fd = memfd_create("fuzz", 0);
    memset(rest, 0x3c, sizeof(rest));
    if (fd < 0 || write(fd, data, n) != (ssize_t)n || write(fd, rest, sizeof(rest)) != (ssize_t)sizeof(rest)) abort();
    return fd;
}

static void answer(struct model *m)
{
    static const int32_t tokens[ROWS];
    static const uint32_t block = 0;
    struct batch_seq seq = { 0, ROWS, 0, &block, 1, .n_logits = 1 };
    struct batch b = { ROWS, tokens, &seq, 1 };
    struct kv_store *kv;
    struct error err;
    float *logits;
    if (model_kv_create(&kv, m, 1, &err) != OK) return;
    const bool ready = model_state_bytes(m) == 0 || model_states_create(kv, m, 1, &err) == OK;
    if (ready && model_forward(m, &b, kv, NULL, NULL) == OK && model_logits(m, 0, 1, &logits) == OK) {
        double sum = 0;
        for (uint32_t i = 0; i < model_info(m)->n_vocab; i++) sum += (double)logits[i];
        if (sum == 12345.678) abort(); /* keeps the reads */
    }
    kv_store_destroy(kv);
}

static void open_and_answer(const char *path, const struct model_info *info)
{
    struct backend_options be_opt = { .n_threads = 1, .limits = model_limits(info, ROWS, CONTEXT) };
    struct model_options opt = { .path = path,
                                 .kv_format = KV_INT8,
                                 .rotate = "auto",
                                 .max_batch_tokens = ROWS,
                                 .max_context = info->context_length < CONTEXT ? info->context_length : CONTEXT,
                                 .weights_fd = -1,
                                 .io = IO_PREAD };
    struct error err;
    struct model *m;
    if (backend_open(&opt.backend, "cpu", &be_opt, &err) != OK) return;
    if (model_open(&m, &opt, &err) == OK) {
        answer(m);
        model_close(m);
    }
    backend_close(opt.backend);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    log_init(LOG_LEVEL_ERROR, "fuzz");
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char path[64];
    struct model_info info;
    struct error err;
    int fd = file_of(data, n);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    if (model_read_info(&info, path, &err) == OK) open_and_answer(path, &info);
    close(fd);
    return 0;
}
