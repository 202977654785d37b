/* cuda_blas.h - fast products with many rows of activations, by bf16 and cuBLASLt. */
#ifndef COMPUTE_CUDA_CUDA_BLAS_H
#define COMPUTE_CUDA_CUDA_BLAS_H
#include "compute/cuda/cuda_internal.h"
#include "compute/cuda/cuda_product.h"

/* Rows of activations from which on it takes less time than the integer kernels. */
#define BLAS_ROWS 128u

struct cuda_blas;
/* Opens the library and takes its memory; NULL where there is none, or no room. */
struct cuda_blas *cuda_blas_open(struct backend *b);
void cuda_blas_close(struct backend *b, struct cuda_blas *blas); /* NULL is fine */
/* Multiplies, if it can: *done says whether it did, and nothing is enqueued where not.  One stream at a time. */
enum status cuda_blas_multiply(struct backend *b, struct cuda_blas *blas, const struct product &p, enum dtype type,
                               cudaStream_t s, bool *done);
/* Rows [row0, row0 + n) of a matrix of a quantized type, F16 or BF16 as bf16, [n][n_cols]. */
cudaError_t product_dequantize(const struct product &p, enum dtype type, uint16_t *out, uint32_t row0, uint32_t n,
                               cudaStream_t s);
#endif
