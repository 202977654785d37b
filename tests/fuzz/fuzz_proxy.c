/* fuzz_proxy.c - what proxies say of their clients: PROXY v2 headers, X-Forwarded-For, and networks that are trusted.
 */
#include "http/http_peer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* The answer must not depend on how many bytes have come, once it is given, nor on what follows the header. */
static void read_header(const uint8_t *data, size_t n)
{
    struct http_address whole = { { 0 } }, part = { { 0 } };
    size_t used = 0, part_used = 0;
    const enum http_proxy got = http_proxy_read(data, n, &whole, &used);
    const bool complete = got == HTTP_PROXY_LOCAL || got == HTTP_PROXY_CLIENT;

    if (got == HTTP_PROXY_MORE && n >= HTTP_PROXY_V2_MAX) abort(); /* its buffer is full and it would wait for ever */
    if (complete && (used < HTTP_PROXY_V2_HEAD || used > n || used > HTTP_PROXY_V2_MAX)) abort();
    for (size_t i = 0; i < n && i < HTTP_PROXY_V2_MAX; i++) {
        /* A copy of that length, so that a byte too many is seen. */
        uint8_t *copy = malloc(i ? i : 1);
        memcpy(copy, data, i);
        const enum http_proxy now = http_proxy_read(copy, i, &part, &part_used);
        free(copy);
        if (now == HTTP_PROXY_MORE) continue;
        if (now != got) abort();
        if (complete && (part_used != used || i < used || memcmp(&part, &whole, sizeof(part)) != 0)) abort();
    }
}

/* A list of addresses, and a network in front of it: what is found is no proxy and can be written and read again. */
static void read_list(char *text)
{
    struct http_trust trust = { .n = 0 };
    struct http_address found, again;
    struct error err = { .status = OK };
    char buf[INET6_ADDRSTRLEN];
    char *list = strchr(text, ' ');

    if (list) *list++ = '\0';
    if (http_trust_add(&trust, text, &err) != OK && err.text[0] == '\0') abort();
    if (!http_address_forwarded(&found, list ? list : text, &trust)) return;
    if (http_trust_has(&trust, &found) || http_address_is_loopback(&found)) abort();
    if (!http_address_parse(&again, http_address_text(&found, buf), strlen(buf))) abort();
    if (memcmp(&found, &again, sizeof(found)) != 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    char *text = malloc(n + 1);

    read_header(data, n);
    memcpy(text, data, n);
    text[n] = '\0';
    read_list(text);
    free(text);
    return 0;
}
