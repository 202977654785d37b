/* client.h - requests to a running cluster's HTTP API, blocking, through libcurl. */
#ifndef CLI_CLIENT_H
#define CLI_CLIENT_H
#include "base/error.h"
#include "base/strbuf.h"

/* Called with each piece of a streamed body; false stops the transfer. */
typedef bool (*client_data_fn)(void *ctx, const char *p, size_t n);

/* GET (body NULL) or POST of a JSON body to url + path.  The answer goes to on_data where that is given and the HTTP
 * status is 200, else to `answer` (bounded).  ERR_CLOSED: no server there; other statuses are in *http_status. */
enum status client_request(const char *url, const char *path, const char *body, client_data_fn on_data, void *ctx,
                           struct strbuf *answer, long *http_status, struct error *err) MUST_CHECK;
/* The sentence for an answer with another status than 200: its error's message, or the body's first line. */
enum status client_refusal(const char *url, long http_status, const struct strbuf *answer, struct error *err);
#endif
