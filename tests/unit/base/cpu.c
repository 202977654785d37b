/* cpu: the flags are what the processor says, and in an emulator they are the emulated processor's. */
#include "base/cpu.h"

#include <cpuid.h>
#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* tests/emulated.sh says which processor it emulates. */
static const char *emulated(void)
{
    return getenv("TEST_EMULATED_CPU");
}

/* Criterion's children leave qemu-user through execve, unless a preload brings them back: then this sees the host's
 * CPUID. */
Test(cpu, an_emulated_test_does_not_see_the_hosts_processor)
{
    if (!emulated()) cr_skip_test("this is not an emulator");
    uint32_t a, word[4] = { 0 };
    __cpuid(0x40000000, a, word[0], word[1], word[2]);
    cr_assert_str_eq((const char *)word, "TCGTCGTCGTCG", "CPUID is not qemu's: this test runs on the host's processor");
    cr_assert_eq(cpu_flags(), strcmp(emulated(), "Haswell") == 0 ? CPU_AVX2 : 0);
}

/* Linux lists a flag where processor and system can do it; of the newer ones old kernels know nothing. */
Test(cpu, flags_are_those_that_linux_lists)
{
    static const struct {
        uint32_t flag;
        const char *names[4];
    } rows[] = { { CPU_AVX2, { " avx2 ", " fma ", " f16c " } },
                 { CPU_AVX512, { " avx512f ", " avx512bw ", " avx512dq ", " avx512vl " } },
                 { CPU_AVX512_VNNI, { " avx512_vnni " } } };
    static char line[16384];
    if (emulated()) cr_skip_test("/proc/cpuinfo is the host's");
    FILE *f = fopen("/proc/cpuinfo", "r");
    bool found = false;
    cr_assert(f);
    while (!found && fgets(line, sizeof(line), f)) found = strncmp(line, "flags", 5) == 0;
    fclose(f);
    cr_assert(found);
    line[strcspn(line, "\n")] = ' ';
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        bool listed = true;
        for (int k = 0; k < 4 && rows[i].names[k]; k++) listed = listed && strstr(line, rows[i].names[k]);
        cr_assert_eq((cpu_flags() & rows[i].flag) != 0, listed, "%s", rows[i].names[0]);
    }
}
