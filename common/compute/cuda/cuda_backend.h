/* cuda_backend.h - the backend of one NVIDIA GPU.  Programs that link it have the name "cuda" in backend_open(). */
#ifndef COMPUTE_CUDA_CUDA_BACKEND_H
#define COMPUTE_CUDA_CUDA_BACKEND_H
#ifdef __cplusplus
extern "C" {
#endif
#include "compute/backend.h"

/* Opens GPU number 0.  ERR_UNAVAILABLE with a sentence where there is none, or no driver for it. */
enum status cuda_backend_open(struct backend **out, const struct backend_options *opt, struct error *err);

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
