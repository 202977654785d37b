/* fuzz_http: any bytes as requests: the same result whether they come whole or in pieces. */
#include "http/http_request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define MAX_HEADER 600u
#define MAX_BODY   300u

/* Reads requests until the bytes end or one is refused; returns a digest of what was read. */
static uint64_t read_all(const char *p, size_t n, size_t piece)
{
    uint64_t digest = 7;
    struct http_request r;
    enum http_feed got = HTTP_FEED_MORE;
    size_t at = 0;
    http_request_init(&r, MAX_HEADER, MAX_BODY);
    while (at < n && got != HTTP_FEED_FAIL) {
        size_t used = 0, give = n - at < piece ? n - at : piece;
        got = http_request_feed(&r, p + at, give, &used);
        if (used > give || (got == HTTP_FEED_MORE && used != give)) abort();
        at += used;
        if (r.body.n > MAX_BODY || r.head_bytes > MAX_HEADER + 1) abort();
        if (got == HTTP_FEED_FAIL && (r.fail_status < 400 || r.fail_text[0] == '\0')) abort();
        /* Not the status: in one piece the head's bound is met before its grammar. */
        if (got == HTTP_FEED_FAIL) digest = digest * 31 + 400;
        if (got != HTTP_FEED_DONE) continue;
        digest = digest * 31 + r.body.n + r.n_fields;
        digest = digest * 31 + strlen(http_request_path(&r)) + strlen(http_request_query(&r)) * 7;
        for (uint32_t i = 0; i < r.n_fields; i++) {
            digest = digest * 31 + strlen(r.text.s + r.fields[i].name) + strlen(r.text.s + r.fields[i].value);
        }
        http_request_fini(&r);
        http_request_init(&r, MAX_HEADER, MAX_BODY);
    }
    http_request_fini(&r);
    return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (n < 2) return 0;
    const char *p = (const char *)data + 1;
    if (read_all(p, n - 1, n) != read_all(p, n - 1, 1u + data[0] % 7)) abort();
    return 0;
}
