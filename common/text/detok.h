/* detok.h - turns a stream of token ids into text without ever splitting a UTF-8 sequence.
 *
 * Bytes of an incomplete sequence are held back until the tokens that complete it arrive; bytes that
 * can never become valid are replaced by U+FFFD. */
#ifndef TEXT_DETOK_H
#define TEXT_DETOK_H
#include "base/strbuf.h"

#include <stdint.h>

struct vocab;

struct detok {
    const struct vocab *vocab; /* borrowed */
    uint8_t held[8];           /* an incomplete UTF-8 sequence */
    uint8_t n_held;
    bool show_special; /* control tokens appear as their text; otherwise they are dropped */
    bool strip_space;  /* SPM: the first space of the text is dropped */
};

void detok_init(struct detok *d, const struct vocab *v, bool show_special);
/* Appends the text that `id` completes to `out` (possibly nothing). */
void detok_add(struct detok *d, int32_t id, struct strbuf *out);
/* Appends what is still held back, as U+FFFD, at the end of the stream. */
void detok_flush(struct detok *d, struct strbuf *out);
#endif
