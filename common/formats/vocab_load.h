/* vocab_load.h - fills text/vocab from a model file's metadata. */
#ifndef FORMATS_VOCAB_LOAD_H
#define FORMATS_VOCAB_LOAD_H
#include "base/error.h"

struct gguf;
struct vocab;

/* Caller owns *out (vocab_destroy), which holds copies: the file may be closed afterwards.  Token ids in the
 * metadata are checked against the vocabulary; ERR_UNSUPPORTED names a tokenizer model that is not known. */
enum status vocab_load_gguf(struct vocab **out, const struct gguf *g, struct error *err) MUST_CHECK;
#endif
