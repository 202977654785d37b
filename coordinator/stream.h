/* stream.h - token ids to the text that may be shown: detokenized, cut at stop strings, never half a character.
 *
 * Text which could be the beginning of a stop string is held back until it is clear.  Owns no I/O. */
#ifndef COORDINATOR_STREAM_H
#define COORDINATOR_STREAM_H
#include "base/strbuf.h"
#include "text/detok.h"

#include <stdbool.h>
#include <stdint.h>

struct api_stop;

struct stream {
    struct detok detok;
    const struct api_stop *stops; /* borrowed */
    uint32_t n_stops;
    uint32_t min_tokens; /* no stop before this many tokens */
    uint32_t n_tokens;   /* fed so far */
    uint32_t chars;      /* characters released and held back */
    struct strbuf held;
};

void stream_init(struct stream *s, const struct vocab *vocab, const struct api_stop *stops, uint32_t n_stops,
                 uint32_t min_tokens);
void stream_fini(struct stream *s);
/* Takes one token and appends what may be shown to `out`.  True: it completed a stop string; the text is cut before
 * it, `chars` counts what is left, and nothing more may be fed. */
bool stream_feed(struct stream *s, int32_t id, struct strbuf *out);
/* The end without a stop string: appends what is held back. */
void stream_finish(struct stream *s, struct strbuf *out);
/* Characters (code points) of n bytes of UTF-8. */
uint32_t stream_count_chars(const char *s, size_t n);
#endif
