/* tensor_dir.h - what tensors a model holds: name, type, shape, place in its files. */
#ifndef FORMATS_TENSOR_DIR_H
#define FORMATS_TENSOR_DIR_H
#include <stddef.h>
#include <stdint.h>

#define TENSOR_MAX_DIMS 4

struct tensor_entry {
    const char *name; /* owned by the directory's file */
    uint32_t type;    /* GGUF's ggml type number, = enum dtype of compute/dtype.h */
    uint32_t n_dims;
    uint64_t ne[TENSOR_MAX_DIMS]; /* ne[0] is the contiguous dimension (columns); 1 beyond n_dims */
    uint32_t part;                /* of the model's files in which it lies; 0 where there is one */
    uint64_t offset;              /* from the start of that file */
    uint64_t bytes;
};

struct tensor_dir {
    struct tensor_entry *entries;
    size_t n;
};

/* NULL if there is no tensor of that name. */
const struct tensor_entry *tensor_dir_find(const struct tensor_dir *dir, const char *name);
#endif
