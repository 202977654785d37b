/* cuda_backend.h - the backend of one NVIDIA GPU.  Programs that link it have the name "cuda" in backend_open(). */
#ifndef COMPUTE_CUDA_CUDA_BACKEND_H
#define COMPUTE_CUDA_CUDA_BACKEND_H
#ifdef __cplusplus
extern "C" {
#endif
#include "compute/backend.h"

/* Opens GPU number 0.  ERR_UNAVAILABLE with a sentence where there is none, or no driver for it. */
enum status cuda_backend_open(struct backend **out, const struct backend_options *opt, struct error *err);
#ifdef __cplusplus
}
#endif
#endif
