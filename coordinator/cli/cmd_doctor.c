/* cmd_doctor.c - `baton doctor`: what of this machine nodes would compute with. */
#include "compute/backend.h"
#include "compute/cuda/cuda_backend.h"
#include "coordinator/cli/cli.h"

#include <stdio.h>

/* Without the CUDA sources there is no such function. */
#pragma weak cuda_report_read

static const struct command COMMAND = {
    "baton doctor", NULL, "Tells the GPUs of this machine, what they need, and what nodes would choose.\n", NULL, 0
};

static void print_library(const char *what, const char *found)
{
    printf("%-12s %s\n", what, found[0] ? found : "not found; it is looked for when a node starts");
}

static void print_report(void)
{
    struct cuda_report r;
    cuda_report_read(&r);
    if (r.driver)
        printf("driver       CUDA %d.%d\n", r.driver / 1000, r.driver % 1000 / 10);
    else
        printf("driver       none (libcuda.so.1 was not found)\n");
    printf("runtime      CUDA %d.%d\n", r.runtime / 1000, r.runtime % 1000 / 10);
    for (uint32_t i = 0; i < r.n_gpus; i++)
        printf("GPU %-8u %s, compute capability %d.%d, %llu MiB, %llu MiB free\n", i,
               r.gpus[i].name[0] ? r.gpus[i].name : "does not answer", r.gpus[i].major, r.gpus[i].minor,
               (unsigned long long)(r.gpus[i].total >> 20), (unsigned long long)(r.gpus[i].free >> 20));
    if (r.n_gpus == 0) printf("GPU          none\n");
    print_library("cuBLASLt", r.cublaslt);
    print_library("NCCL", r.nccl);
}

int cmd_doctor(int argc, char **argv)
{
    struct error why = { 0 };
    int n_operands, nothing, rc = command_parse(&COMMAND, &nothing, argc, argv, &n_operands);
    if (rc >= 0) return rc;
    if (n_operands > 0) {
        fprintf(stderr, "%s: %s: nothing is expected here; --help says more\n", COMMAND.name, argv[1]);
        return EXIT_USAGE;
    }
    if (cuda_report_read) print_report();
    const char *name = backend_choose("auto", 0, &why);
    printf("backend      auto would choose %s%s%s%s\n", name, why.status == OK ? "" : " (", why.text,
           why.status == OK ? "" : ")");
    return 0;
}
