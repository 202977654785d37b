/* sse.c - frames events of an event stream. */
#include "http/sse.h"

#include "base/strbuf.h"

#include <string.h>

static const char done_event[] = "data: [DONE]\n\n";

void sse_begin(struct http_exchange *x)
{
    http_set_header(x, "Cache-Control", "no-cache");
    http_set_header(x, "X-Accel-Buffering", "no");
    http_begin(x, 200, "text/event-stream");
}

void sse_data(struct http_exchange *x, const char *text, size_t n)
{
    struct strbuf event = STRBUF_INIT; /* one write: an event is one chunk */
    strbuf_puts(&event, "data: ");
    strbuf_add(&event, text, n);
    strbuf_puts(&event, "\n\n");
    http_write(x, event.s, event.n);
    strbuf_fini(&event);
}

void sse_ping(struct http_exchange *x)
{
    http_write(x, ":\n\n", 3);
}

void sse_done(struct http_exchange *x)
{
    http_write(x, done_event, strlen(done_event));
    http_end(x);
}
