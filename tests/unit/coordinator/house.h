/* house.h - a whole coordinator behind its HTTP port, on the test's own loop, with fake nodes.
 *
 *     house_open("");                              // lines of YAML below coordinator:
 *     house_join(&h.d0, "d0", 2, true);
 *     struct reply r = ask("GET /live", NULL);     // runs the loop until the answer is there
 *     int fd = send_request("POST /v1/completions", body);   ...   read_reply(fd) */
#ifndef TESTS_COORDINATOR_HOUSE_H
#define TESTS_COORDINATOR_HOUSE_H
#include "base/log.h"
#include "base/metrics.h"
#include "coordinator/api.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/coordinator.h"
#include "coordinator/meters.h"
#include "coordinator/served_model.h"
#include "coordinator/work.h"
#include "http/http_server.h"
#include "tests/unit/coordinator/bytes_model.h"
#include "tests/unit/coordinator/fake_node.h"
#include "wire/job.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define HOUSE_WAIT_S 20

static struct house {
    uv_loop_t loop;
    struct config_run run;
    struct coordinator *co;
    struct fake_node p0, d0;
    char model[64], yaml[64];
} h;

static inline void house_config(const char *models, const char *options)
{
    char *argv[] = { (char *)"test", (char *)"--config", h.yaml };
    struct error err = { 0 };
    snprintf(h.yaml, sizeof(h.yaml), "/tmp/baton-house-%d.yaml", (int)getpid());
    FILE *f = fopen(h.yaml, "w");
    cr_assert_not_null(f);
    fprintf(f, "models: [ %s ]\nlog: { level: error }\n", models);
    fprintf(f, "coordinator:\n%s%s%s", strstr(options, " control:") ? "" : "  control: [ \"tcp://127.0.0.1:0\" ]\n",
            strstr(options, " http:") ? "" : "  http: [ \"127.0.0.1:0\" ]\n", options);
    fclose(f);
    cr_assert_eq(config_load(&h.run, CONFIG_COORDINATOR, 3, argv, &err), OK, "%s", err.text);
    unlink(h.yaml);
}

/* Serves the model file at `path`. */
static inline void house_open_model(const char *path, const char *options)
{
    char models[256];
    struct error err = { 0 };
    log_init(LOG_LEVEL_ERROR, "test");
    uv_loop_init(&h.loop);
    snprintf(models, sizeof(models), "{ name: tiny, path: %s }", path);
    house_config(models, options);
    cr_assert_eq(coordinator_create(&h.co, &h.loop, &h.run.cfg, &err), OK, "%s", err.text);
}

static inline void house_open_with(const char *chat_template, const char *options)
{
    snprintf(h.model, sizeof(h.model), "/tmp/baton-house-%d.gguf", (int)getpid());
    bytes_model_write(h.model, "llama", chat_template);
    house_open_model(h.model, options);
    unlink(h.model);
}

static inline void house_open(const char *options)
{
    house_open_with(BYTES_TEMPLATE, options);
}

static inline void house_close(void)
{
    coordinator_stop(h.co);
    if (h.p0.socket) fake_close(&h.p0);
    if (h.d0.socket) fake_close(&h.d0);
    uv_run(&h.loop, UV_RUN_DEFAULT);
    coordinator_destroy(h.co);
    cr_assert_eq(uv_loop_close(&h.loop), 0);
    config_fini(&h.run);
}

static inline void house_join(struct fake_node *n, const char *name, uint64_t incarnation, bool decode)
{
    *n = fake_open(dispatch_endpoint(h.co->sv.dispatch), name, incarnation, decode);
    n->n_vocab = BYTES_COUNT;
    fake_hello(n, h.co->sv.models[0]->fingerprint, 4);
    n->coordinator = fake_expect(n, &h.loop, IS(WELCOME))->incarnation;
}

/* One turn of the loop, with a wait for it or for `fd` (-1: none). */
static inline void house_turn(int fd)
{
    struct pollfd p[2] = { { .fd = uv_backend_fd(&h.loop), .events = POLLIN }, { .fd = fd, .events = POLLIN } };
    uv_run(&h.loop, UV_RUN_NOWAIT);
    poll(p, fd < 0 ? 1 : 2, 2);
    uv_run(&h.loop, UV_RUN_NOWAIT);
}

#define HOUSE_UNTIL(cond)                                                                                              \
    do {                                                                                                               \
        time_t end_ = time(NULL) + HOUSE_WAIT_S;                                                                       \
        while (!(cond) && time(NULL) < end_) house_turn(-1);                                                           \
        cr_assert(cond);                                                                                               \
    } while (0)

struct reply {
    int status;
    char head[4096];
    char *body; /* of chunked ones put together; until the next reply */
};

/* `line`: "GET /path"; `more`: further header lines, each with its end. */
static inline int send_to(int port, const char *line, const char *more, const char *body)
{
    static char text[1 << 20];
    struct sockaddr_in to = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    to.sin_port = htons((uint16_t)port);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0);
    int n = snprintf(text, sizeof(text), "%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s", line, more);
    if (body) n += snprintf(text + n, sizeof(text) - (size_t)n, "Content-Length: %zu\r\n", strlen(body));
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n%s", body ? body : "");
    cr_assert(n < (int)sizeof(text) && send(fd, text, (size_t)n, MSG_NOSIGNAL) == n);
    return fd;
}

static inline int send_with(const char *line, const char *more, const char *body)
{
    return send_to(http_server_port(h.co->http), line, more, body);
}

static inline int send_request(const char *line, const char *body)
{
    return send_with(line, body ? "Content-Type: application/json\r\n" : "", body);
}

static inline void unchunk(char *body)
{
    char *from = body, *to = body, *end;
    for (size_t n; (n = strtoul(from, &end, 16)) > 0; from = end + 2 + n + 2, to += n) memmove(to, end + 2, n);
    *to = '\0';
}

/* What has come so far, without waiting for more; false once the server has closed. */
static inline bool read_some(int fd, struct strbuf *got)
{
    char part[65536];
    house_turn(fd);
    ssize_t n = recv(fd, part, sizeof(part), MSG_DONTWAIT);
    if (n > 0) strbuf_add(got, part, (size_t)n);
    return n > 0 || (n < 0 && errno == EAGAIN);
}

static inline struct reply take_apart(struct strbuf *got)
{
    struct reply r = { 0 };
    char *gap = strstr(strbuf_cstr(got), "\r\n\r\n");
    cr_assert(gap, "no answer: %s", strbuf_cstr(got));
    snprintf(r.head, sizeof(r.head), "%.*s\r\n", (int)(gap - got->s), got->s);
    r.body = gap + 4;
    if (strstr(r.head, "chunked")) unchunk(r.body);
    cr_assert_eq(sscanf(r.head, "HTTP/1.1 %d", &r.status), 1);
    return r;
}

/* Runs the loop until the server has closed. */
static inline struct reply read_reply(int fd)
{
    static struct strbuf got;
    time_t end = time(NULL) + HOUSE_WAIT_S;
    strbuf_reset(&got);
    while (read_some(fd, &got)) cr_assert(time(NULL) < end, "no end of: %s", strbuf_cstr(&got));
    close(fd);
    return take_apart(&got);
}

static inline struct reply ask(const char *line, const char *body)
{
    return read_reply(send_request(line, body));
}

static inline struct reply ask_with(const char *line, const char *more, const char *body)
{
    return read_reply(send_with(line, more, body));
}

static inline void expect_reply(const char *line, const char *body, int status, const char *want)
{
    struct reply r = ask(line, body);
    cr_assert_eq(r.status, status, "%s %s: %d %s", line, body ? body : "", r.status, r.body);
    cr_assert_str_eq(r.body, want, "%s %s", line, body ? body : "");
}

/* Whether the head has this line, as a whole. */
static inline bool has_line(const struct reply *r, const char *line)
{
    char whole[512];
    snprintf(whole, sizeof(whole), "\r\n%s\r\n", line);
    return strcasestr(r->head, whole) != NULL;
}

/* The value of a metric in what /metrics shows; -1: it is not there. */
static inline double metric_in(const char *text, const char *series)
{
    char want[256];
    snprintf(want, sizeof(want), "\n%s ", series);
    const char *at = strstr(text, want);
    return at ? strtod(at + strlen(want), NULL) : -1;
}

static inline double metric_of(const char *series)
{
    return metric_in(ask("GET /metrics", NULL).body, series);
}
#endif
