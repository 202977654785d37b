/* token_id.h - the one bound of token ids: the rows of a model's embedding.
 *
 * A file may have more rows than its vocabulary has tokens (padding): such an id is one that a model can take and
 * give, it just has no text.  Whatever takes an id from outside asks here: requests, peers, files, the engine. */
#ifndef BASE_TOKEN_ID_H
#define BASE_TOKEN_ID_H
#include <stdbool.h>
#include <stdint.h>

#define TOKEN_IDS_MAX (1u << 22) /* rows of the largest embedding that is read */

static inline bool token_id_ok(int64_t id, uint32_t n_vocab)
{
    return id >= 0 && id < (int64_t)n_vocab;
}
#endif
