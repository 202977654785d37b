/* level: the level is what was named or the best there is, and one that gives wrong bits is not used. */
#include "base/cpu.h"
#include "compute/cpu/cpu_level.h"
#include "helpers/amx_trap.h"
#include "helpers/vex_trap.h"

#include <criterion/criterion.h>
#include <string.h>

static void expect_level(const char *isa, uint32_t flags, enum status want, const char *text)
{
    const struct cpu_kernels *k = NULL;
    struct error err;
    enum status st = cpu_level_choose(&k, isa, flags, &err);
    cr_assert_eq(st, want, "%s: %d", isa, (int)st);
    if (st == OK)
        cr_assert_str_eq(k->name, text);
    else
        cr_assert(!k && strstr(err.text, text), "%s", err.text);
}

static bool has_vnni(void)
{
    return (cpu_flags() & cpu_kernels_vnni.flags) == cpu_kernels_vnni.flags;
}

static uint32_t wrong_type, wrong_row, wrong_lane;

/* ref, but for the lowest bit of one output. */
static void off_by_a_bit(const struct matmul_job *job, uint32_t p0, uint32_t p1, uint32_t r0, uint32_t r1,
                         void *scratch)
{
    uint32_t bits;
    float *y = job->y + (wrong_row ? r1 - 1 : 0) * job->ld + wrong_lane;
    cpu_kernels_ref.matmul(job, p0, p1, r0, r1, scratch);
    memcpy(&bits, y, sizeof(bits));
    bits ^= job->type == wrong_type;
    memcpy(y, &bits, sizeof(bits));
}

static struct cpu_kernels level_with(matmul_fn matmul)
{
    struct cpu_kernels k = cpu_kernels_ref;
    k.name = "candidate";
    k.checked_by = &cpu_kernels_ref;
    k.matmul = matmul;
    return k;
}

Test(level, is_the_best_that_the_processor_has_or_the_one_named)
{
    const uint32_t avx2 = CPU_AVX2, avx512 = avx2 | CPU_AVX512;
    expect_level("ref", 0, OK, "ref");
    expect_level("auto", avx2, OK, "avx2");
    expect_level("auto", avx512, OK, "avx512");
    expect_level("auto", avx512 | CPU_AVX512_VNNI, OK, "vnni");
    expect_level("avx2", avx512, OK, "avx2");
    cr_assert_str_eq(cpu_kernels_best(avx512 | CPU_AVX512_VNNI | CPU_AMX_INT8)->name, "amx");
}

Test(level, refuses_what_it_does_not_know_and_what_the_processor_does_not_have)
{
    expect_level("amx", CPU_AVX2 | CPU_AVX512 | CPU_AVX512_VNNI, ERR_UNSUPPORTED, "the best here is \"vnni\"");
    expect_level("vnni", CPU_AVX2, ERR_UNSUPPORTED, "the best here is \"avx2\"");
    expect_level("sse", CPU_AVX2, ERR_INVALID, "vnni or amx");
    expect_level(NULL, 0, ERR_UNSUPPORTED, "no AVX2 with FMA and F16C");
    expect_level("", CPU_AVX2, ERR_INVALID, "isa \"\": expected auto, ref");
    expect_level("auto", CPU_AVX512, ERR_UNSUPPORTED, "isa \"ref\" computes the same");
}

/* In whichever of the sums, and wherever it stands. */
Test(level, that_gives_other_bits_is_replaced_or_if_it_was_named_refused)
{
    static const uint32_t types[] = { DTYPE_Q8_0, DTYPE_Q4_1, DTYPE_Q6_K, DTYPE_Q2_K };
    const struct cpu_kernels wrong = level_with(off_by_a_bit), right = level_with(cpu_kernels_ref.matmul);
    struct error err;
    const struct cpu_kernels *k = &right;
    cr_assert_eq(cpu_level_check(&k, true, &err), OK);
    cr_assert_eq(k, &right);
    for (uint32_t i = 0; i < 16; i++) {
        wrong_type = types[i / 4];
        wrong_row = i / 2 % 2;
        wrong_lane = i % 2 * 15;
        k = &wrong;
        cr_assert_eq(cpu_level_check(&k, true, &err), ERR_UNSUPPORTED, "case %u", i);
        cr_assert(strstr(err.text, "\"candidate\"") && strstr(err.text, "\"ref\""), "%s", err.text);
        cr_assert_eq(cpu_level_check(&k, false, &err), OK);
        cr_assert_eq(k, &cpu_kernels_ref);
    }
}

Test(level, amx_passes_its_check)
{
    if (!has_vnni()) cr_skip_test("AVX-512 VNNI is needed");
    const bool native = (cpu_flags() & CPU_AMX_INT8) || !amx_trap_install();
    const unsigned long before = vex_trap_count();
    const struct cpu_kernels *k = &cpu_kernels_amx;
    struct error err;
    cr_assert_eq(cpu_level_check(&k, true, &err), OK, "%s", err.text);
    cr_assert_eq(k, &cpu_kernels_amx);
    cr_assert(native || vex_trap_count() > before);
}
