/* gguf_cut.h - writes the parts of a model, for tests.
 *
 *     char *first = gguf_cut(path, 3);   // PATH-00001-of-00003.gguf and its two neighbours
 *     ... gguf_cut_remove(first, 3);     // deletes them and frees the name */
#ifndef HELPERS_GGUF_CUT_H
#define HELPERS_GGUF_CUT_H
#include <stdint.h>

/* The first part has all metadata and, as some writers leave it, no tensors where there are more than two parts; the
 * others share the tensors in order. */
char *gguf_cut(const char *path, uint32_t n_parts);
void gguf_cut_remove(char *first, uint32_t n_parts);
#endif
