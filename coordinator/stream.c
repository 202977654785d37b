/* stream.c - holds text back while it may become a stop string, and cuts it when it does. */
#include "coordinator/stream.h"

#include "coordinator/openai.h"

#include <string.h>

void stream_init(struct stream *s, const struct vocab *vocab, const struct api_stop *stops, uint32_t n_stops,
                 uint32_t min_tokens)
{
    *s = (struct stream){ .stops = stops, .n_stops = n_stops, .min_tokens = min_tokens };
    detok_init(&s->detok, vocab, false);
    s->detok.strip_space = false; /* an answer continues its prompt: its first space is meant */
}

void stream_fini(struct stream *s)
{
    strbuf_fini(&s->held);
}

uint32_t stream_count_chars(const char *s, size_t n)
{
    uint32_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((unsigned char)s[i] & 0xC0) != 0x80;
    return chars;
}

/* Where the first complete stop string begins, or -1. */
static long find_stop(const struct stream *s)
{
    long first = -1;
    for (uint32_t i = 0; i < s->n_stops; i++) {
        const char *at = memmem(s->held.s, s->held.n, s->stops[i].text, s->stops[i].n);
        if (at && (first < 0 || at - s->held.s < first)) first = at - s->held.s;
    }
    return first;
}

/* How many bytes at the end of the held text are the beginning of some stop string. */
static size_t stop_prefix(const struct stream *s)
{
    size_t longest = 0;
    for (uint32_t i = 0; i < s->n_stops; i++) {
        size_t n = s->stops[i].n - 1 < s->held.n ? s->stops[i].n - 1 : s->held.n;
        for (; n > longest; n--)
            if (!memcmp(s->held.s + s->held.n - n, s->stops[i].text, n)) longest = n;
    }
    return longest;
}

static void release(struct stream *s, size_t n, struct strbuf *out)
{
    if (!n) return;
    strbuf_add(out, s->held.s, n);
    strbuf_drop(&s->held, n);
}

bool stream_feed(struct stream *s, int32_t id, struct strbuf *out)
{
    size_t before = s->held.n;
    detok_add(&s->detok, id, &s->held);
    s->n_tokens++;
    if (s->held.n == before) return false;
    s->chars += stream_count_chars(s->held.s + before, s->held.n - before);
    if (s->n_tokens < s->min_tokens) {
        release(s, s->held.n, out);
        return false;
    }
    long stop = find_stop(s);
    if (stop >= 0) {
        s->chars -= stream_count_chars(s->held.s + stop, s->held.n - (size_t)stop);
        release(s, (size_t)stop, out);
        strbuf_reset(&s->held);
        return true;
    }
    release(s, s->held.n - stop_prefix(s), out);
    return false;
}

void stream_finish(struct stream *s, struct strbuf *out)
{
    size_t before = s->held.n;
    detok_flush(&s->detok, &s->held);
    if (s->held.n > before) s->chars += stream_count_chars(s->held.s + before, s->held.n - before);
    release(s, s->held.n, out);
}
