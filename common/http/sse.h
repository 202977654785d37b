/* sse.h - server-sent events framing over an http exchange. */
#ifndef HTTP_SSE_H
#define HTTP_SSE_H
#include "http/http_server.h"

/* Status 200 with the event stream's headers (no-cache, X-Accel-Buffering: no). */
void sse_begin(struct http_exchange *x);
/* One event "data: <text>\n\n"; `text` is one line. */
void sse_data(struct http_exchange *x, const char *text, size_t n);
/* A comment line that keeps the connection alive. */
void sse_ping(struct http_exchange *x);
/* "data: [DONE]\n\n" and the end of the stream. */
void sse_done(struct http_exchange *x);
#endif
