/* cuda_backend.h - the backend of one NVIDIA GPU.  Programs that link it have the name "cuda" in backend_open(). */
#ifndef COMPUTE_CUDA_CUDA_BACKEND_H
#define COMPUTE_CUDA_CUDA_BACKEND_H
#ifdef __cplusplus
extern "C" {
#endif
#include "compute/backend.h"

#define CUDA_MAX_GPUS 16

/* What `baton doctor` tells. */
struct cuda_report {
    int driver, runtime; /* CUDA versions, 12040 for 12.4; driver 0: there is none */
    uint32_t n_gpus;
    struct {
        char name[256];
        uint64_t free, total; /* bytes; 0 where it did not answer */
        int major, minor;     /* compute capability */
    } gpus[CUDA_MAX_GPUS];
    char cublaslt[64], nccl[64]; /* the library that was found, or "" */
};

enum status cuda_backend_open(struct backend **out, const struct backend_options *opt, struct error *err);
/* Whether a backend would open on GPU `device`: OK, or ERR_UNAVAILABLE with what is missing.  Takes no memory there. */
enum status cuda_device_check(uint32_t device, struct error *err);
uint64_t cuda_device_bytes(uint32_t device); /* all of its memory; 0: it does not answer */
/* Whether machine code for `archs`, such as "90a,80", runs on compute capability `arch`, such as 86. */
bool cuda_archs_have(const char *archs, int arch);
void cuda_report_read(struct cuda_report *out);

/* For measuring: enqueues a kernel that reads `bytes` of device memory and does nothing else; `sink` is 4 bytes of it
 * that may be written. */
enum status cuda_read_all(struct backend *b, const void *p, size_t bytes, void *sink);
/* For tests: rows [row0, row0 + n) of a matrix as fast products of many rows see them, bf16 [n][n_cols] on the device.
 * Of a quantized type, F16 or BF16. */
enum status cuda_weight_dequantize(struct backend *b, const struct weight *w, uint32_t row0, uint32_t n, uint16_t *out);
#ifdef __cplusplus
}
#endif
#endif
