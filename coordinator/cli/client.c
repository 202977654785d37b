/* client.c - one HTTP request through libcurl. */
#include "coordinator/cli/client.h"

#include <curl/curl.h>
#include <jansson.h>
#include <string.h>

struct transfer {
    CURL *curl;
    client_data_fn on_data;
    void *ctx;
    struct strbuf *answer;
};

static size_t take_data(char *p, size_t size, size_t n, void *arg)
{
    struct transfer *t = arg;
    long code = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &code);
    if (t->on_data && code == 200) return t->on_data(t->ctx, p, size * n) ? size * n : 0;
    strbuf_add(t->answer, p, size * n);
    return size * n;
}

enum status client_request(const char *url, const char *path, const char *body, client_data_fn on_data, void *ctx,
                           struct strbuf *answer, long *http_status, struct error *err)
{
    struct strbuf full = STRBUF_INIT;
    strbuf_addf(&full, "%s%s", url, path);
    struct transfer t = { curl_easy_init(), on_data, ctx, answer };
    if (!t.curl) return error_set(err, ERR_INTERNAL, "libcurl does not start");
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    headers = curl_slist_append(headers, "Expect:");
    curl_easy_setopt(t.curl, CURLOPT_URL, strbuf_cstr(&full));
    curl_easy_setopt(t.curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(t.curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t.curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t.curl, CURLOPT_CONNECTTIMEOUT, 5L);
    curl_easy_setopt(t.curl, CURLOPT_WRITEFUNCTION, take_data);
    curl_easy_setopt(t.curl, CURLOPT_WRITEDATA, &t);
    if (body) curl_easy_setopt(t.curl, CURLOPT_POSTFIELDS, body);
    CURLcode rc = curl_easy_perform(t.curl);
    curl_easy_getinfo(t.curl, CURLINFO_RESPONSE_CODE, http_status);
    curl_slist_free_all(headers);
    curl_easy_cleanup(t.curl);
    enum status st = OK;
    if (rc == CURLE_COULDNT_CONNECT)
        st = error_set(err, ERR_CLOSED, "no cluster answers at %s (start one with `baton serve -m FILE.gguf`)", url);
    else if (rc != CURLE_OK)
        st = error_set(err, ERR_IO, "%s: %s", strbuf_cstr(&full), curl_easy_strerror(rc));
    strbuf_fini(&full);
    return st;
}

enum status client_refusal(const char *url, long http_status, const struct strbuf *answer, struct error *err)
{
    json_t *root = json_loadb(strbuf_cstr(answer), answer->n, 0, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(root, "error"), "message"));
    if (!message) message = strbuf_cstr(answer);
    error_set(err, ERR_INVALID, "%s answers HTTP %ld: %.*s", url, http_status, (int)strcspn(message, "\r\n"), message);
    json_decref(root);
    return ERR_INVALID;
}
