/* cuda_check.h - the CUDA backend beside the reference level of the CPU's, for tests that want the same bits of both.
 *
 * What "cuda" is depends on the build: the emulator of tests/simt, or a GPU (-DBATON_GPU_TESTS=ON). */
#ifndef TESTS_HELPERS_CUDA_CHECK_H
#define TESTS_HELPERS_CUDA_CHECK_H
#include "base/mem.h"
#include "compute/backend.h"
#include "helpers/check_backend.h"
#include "helpers/kernel_check.h"

#include <criterion/criterion.h>
#include <string.h>

struct both {
    struct backend *cpu, *gpu;
};

/* The test fails where one does not open.  close_both() ends it. */
static inline struct both open_both(struct backend_limits limits)
{
    const struct backend_options opt = { .n_threads = 1, .limits = limits };
    struct both b = { .cpu = check_backend("ref", 1, limits) };
    struct error err;
    cr_assert_eq(backend_open(&b.gpu, "cuda", &opt, &err), OK, "%s", err.text);
    return b;
}

static inline void close_both(struct both *b)
{
    backend_close(b->cpu);
    backend_close(b->gpu);
}

/* Device memory with what is at `from` in it (NULL: zeros).  check_release() frees it. */
static inline void *check_device(struct backend *b, const void *from, size_t bytes)
{
    void *p;
    cr_assert_eq(b->ops->alloc(b, bytes, &p), OK);
    if (from) cr_assert_eq(b->ops->upload(b, NULL, p, from, bytes), OK);
    return p;
}

static inline void check_release(struct backend *b, void *p, size_t bytes)
{
    b->ops->release(b, p, bytes);
}

/* What is in device memory; the caller frees it with mem_free(). */
static inline void *check_host(struct backend *b, const void *p, size_t bytes)
{
    void *host = mem_alloc(bytes);
    cr_assert_eq(b->ops->download(b, NULL, host, p, bytes), OK);
    cr_assert_eq(b->ops->sync(b, NULL), OK);
    return host;
}

/* Fails at the first float whose bits differ; NaNs are equal whatever their payload. */
static inline void check_same_floats(const float *want, const float *got, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], sizeof(float)) != 0 && !(want[i] != want[i] && got[i] != got[i]))
            cr_assert_fail("%s: float %zu is %a, not %a", what, i, (double)got[i], (double)want[i]);
}
#endif
