/* device: which GPU may be used and why not, how much of its memory, and what its failure does. */
#include "compute/cuda/cuda_backend.h"
#include "helpers/cuda_check.h"

#define MIB ((size_t)1 << 20)

/* Of the emulator; a build for a real GPU has none of them, and skips what needs them. */
#pragma weak simt_set_machine
#pragma weak simt_fail_from
extern void simt_set_machine(int driver_version, int n_gpus);
extern void simt_fail_from(int error, unsigned n);

static const struct backend_limits LIMITS = { .max_rows = 16, .max_context = 512, .max_cols = 256 };

static void expect_refused(uint32_t device, const char *text)
{
    const struct backend_options opt = { .n_threads = 1, .limits = LIMITS, .device = device };
    struct backend *b;
    struct error err = { 0 };
    cr_assert_eq(backend_open(&b, "cuda", &opt, &err), ERR_UNAVAILABLE);
    cr_assert_str_eq(err.text, text);
    cr_assert_str_eq(backend_choose("auto", device, &err), "cpu");
    cr_assert_str_eq(err.text, text);
}

Test(device, what_is_missing_is_said)
{
    struct error why = { 0 };
    cr_assert_str_eq(backend_choose("auto", 0, &why), "cuda", "%s", why.text);
    cr_assert_str_eq(backend_choose("cpu", 0, &why), "cpu");
    if (!simt_set_machine) cr_skip_test("needs the emulator");
    expect_refused(1, "backend cuda: devices is 1, the GPUs here are 0 to 0");
    simt_set_machine(13000, 0);
    expect_refused(0, "backend cuda: there is no NVIDIA GPU here");
    simt_set_machine(0, 0);
    expect_refused(0, "backend cuda: there is no NVIDIA driver on this machine (libcuda.so.1 was not found)");
    cr_assert_str_eq(backend_choose("cuda", 0, &why), "cuda", "what is named is not tried");
    simt_set_machine(12040, 1);
    expect_refused(0, "backend cuda: the NVIDIA driver is too old: it speaks CUDA 12.4, needed is 13.0");
}

Test(device, machine_code_fits_or_does_not)
{
    cr_assert(cuda_archs_have("90a", 90) && cuda_archs_have("80,90a", 90) && cuda_archs_have("80,90a", 86));
    cr_assert(cuda_archs_have("80", 89) && cuda_archs_have("120", 121));
    cr_assert_not(cuda_archs_have("90a", 100) || cuda_archs_have("90a", 80) || cuda_archs_have("86", 80));
    cr_assert_not(cuda_archs_have("", 90) || cuda_archs_have("x", 90));
}

Test(device, no_more_memory_is_taken_than_may_be)
{
    const struct backend_options opt = { .n_threads = 1, .limits = LIMITS, .memory = 64 * MIB };
    struct backend *b;
    struct error err = { 0 };
    void *p, *q;
    uint64_t left, total, now;
    cr_assert_eq(backend_open(&b, "cuda", &opt, &err), OK, "%s", err.text);
    cr_assert_eq(b->ops->memory(b, &left, &total), OK);
    cr_assert(left <= 64 * MIB && left > 32 * MIB && total > left);
    cr_assert_eq(b->ops->alloc(b, 20 * MIB, &p), OK);
    cr_assert_eq(b->ops->memory(b, &now, &total), OK);
    cr_assert_eq(now, left - 20 * MIB);
    cr_assert_eq(b->ops->alloc(b, left, &q), ERR_NO_MEMORY);
    b->ops->release(b, p, 20 * MIB);
    cr_assert_eq(b->ops->memory(b, &now, &total), OK);
    cr_assert_eq(now, left);
    cr_assert_eq(b->ops->alloc(b, left, &q), OK, "the refusal broke nothing");
    b->ops->release(b, q, left);
    backend_close(b);
}

Test(device, more_memory_than_is_free_is_refused_with_numbers)
{
    const struct backend_options opt = { .n_threads = 1, .limits = LIMITS, .memory = (uint64_t)4 << 40 };
    struct backend *b;
    struct error err = { 0 };
    cr_assert_eq(backend_open(&b, "cuda", &opt, &err), ERR_NO_MEMORY);
    cr_assert(strstr(err.text, "gpu_memory is 4194304.0 MiB, GPU 0 ("), "%s", err.text);
}

Test(device, the_report_has_the_gpu)
{
    struct cuda_report r;
    cuda_report_read(&r);
    cr_assert(r.driver >= 12000 && r.runtime >= 12000 && r.n_gpus >= 1);
    cr_assert(r.gpus[0].name[0] && r.gpus[0].major > 0 && r.gpus[0].total > 0 && r.gpus[0].free <= r.gpus[0].total);
    cr_assert_eq(backend_device_bytes("cuda", 0), r.gpus[0].total);
    cr_assert_eq(backend_device_bytes("cuda", 99), 0);
    cr_assert_eq(backend_device_bytes("cpu", 0), 0);
}
