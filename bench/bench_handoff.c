/* bench_handoff.c - GB/s of a hand-off over loopback, beside a plain TCP copy of as many bytes in the same run.
 *
 * Both move KV from one region of 100 MB into another: the hand-off exports int8 blocks, checks every frame and
 * scatters them into blocks; the copy reads a stream and puts it into place.  Both end with the receiver's word. */
#include "bench/bench.h"

#include "base/clock.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "node/kv_recv.h"
#include "node/kv_send.h"
#include "wire/zsock.h"

#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define N_LAYERS   30 /* SmolLM2-135M's geometry: 12,240 bytes a token */
#define N_KV_HEADS 3
#define HEAD_DIM   64
#define N_TOKENS   8192
#define N_BLOCKS   (N_TOKENS / KV_BLOCK_TOKENS)
#define MAX_ROUNDS 1000
#define READ_BYTES (1 << 20)
#define WAIT_MS    60000

struct setup {
    struct cache_geometry geometry;
    struct backend *backend;
    struct kv_store from, to;
    struct kv_map *from_map, *to_map;
    struct kv_recv *recv;
    struct kv_send *send;
    struct metrics *metrics;
    struct mailbox *done;
    uint32_t lanes, frame_bytes, counter;
};

static void fail(const char *what)
{
    fprintf(stderr, "baton-bench handoff: %s\n", what);
    exit(1);
}

static void on_recv(void *ctx, const struct kv_recv_event *ev)
{
    (void)ctx;
    if (ev->kind == KV_RECV_FAILED) fail(ev->message);
}

static void on_send(void *ctx, const struct kv_send_event *ev)
{
    struct setup *s = ctx;
    if (ev->kind == KV_SEND_FAILED) fail(ev->message);
    if (mailbox_post(s->done, s) != OK) fail("the mailbox is full");
}

static void make_store(struct setup *s, struct kv_store *kv)
{
    const struct kv_geometry g = { N_KV_HEADS, HEAD_DIM, KV_INT8, false };
    size_t slice = s->backend->ops->kv_slice_bytes(s->backend, &g);
    void *memory;

    *kv = (struct kv_store){ .n_layers = N_LAYERS, .n_blocks = N_BLOCKS, .backend = s->backend };
    kv->bytes = slice * N_BLOCKS * N_LAYERS;
    if (s->backend->ops->alloc(s->backend, kv->bytes, &memory) != OK) fail("out of memory");
    kv->memory = memory;
    kv->layers = mem_array(N_LAYERS, sizeof(*kv->layers));
    for (uint32_t l = 0; l < N_LAYERS; l++)
        kv->layers[l] = (struct kv_slices){ kv->memory + l * slice * N_BLOCKS, slice, g };
}

/* Valid rows everywhere: values in -127..127 and positive scales. */
static void fill_store(struct setup *s, struct kv_store *kv)
{
    uint8_t wire[KV_BLOCK_TOKENS * (HEAD_DIM + 4)];
    const float scale = 0.02F;

    for (size_t i = 0; i < KV_BLOCK_TOKENS * HEAD_DIM; i++) wire[i] = (uint8_t)(int8_t)((int)(i * 31 % 255) - 127);
    for (size_t i = 0; i < KV_BLOCK_TOKENS; i++) memcpy(wire + KV_BLOCK_TOKENS * HEAD_DIM + 4 * i, &scale, 4);
    for (uint32_t l = 0; l < N_LAYERS; l++)
        for (uint32_t b = 0; b < N_BLOCKS; b++)
            for (uint32_t hv = 0; hv < 2 * N_KV_HEADS; hv++) {
                const struct kv_piece p = { .layer = l,
                                            .head = hv / 2,
                                            .is_v = hv % 2,
                                            .block = b,
                                            .t1 = KV_BLOCK_TOKENS,
                                            .scales = KV_BLOCK_TOKENS * HEAD_DIM };
                if (s->backend->ops->kv_unpack(s->backend, NULL, kv->layers, &p, 1, wire) != OK)
                    fail("cannot fill the KV memory");
            }
}

static struct kv_map *map_of(struct kv_store *kv)
{
    const struct mesh mesh = { .tp = 1, .pp = 1, .n_layers = N_LAYERS };
    struct kv_map *map;
    struct error err;
    if (kv_map_create(&map, &mesh, &kv, &err) != OK) fail(err.text);
    return map;
}

static void set_up(struct setup *s)
{
    const struct backend_limits limits = { 64, N_TOKENS, 4096, 64, HEAD_DIM };
    struct error err;

    cache_geometry_set_uniform(&s->geometry, N_LAYERS,
                               &(struct cache_group){ .kind = BATON__KV__CACHE_KIND__KV,
                                                      .codec = BATON__KV__CODEC__INT8,
                                                      .n_heads = N_KV_HEADS,
                                                      .head_dim = HEAD_DIM,
                                                      .block_tokens = KV_BLOCK_TOKENS });
    if (backend_open(&s->backend, "cpu", &(struct backend_options){ .n_threads = 1, .limits = limits }, &err) != OK)
        fail(err.text);
    make_store(s, &s->from);
    make_store(s, &s->to);
    fill_store(s, &s->from);
    fill_store(s, &s->to);
    s->from_map = map_of(&s->from);
    s->to_map = map_of(&s->to);
    s->metrics = metrics_create();
    if (mailbox_create(&s->done, 16) != OK) fail("out of memory");
    const struct kv_recv_options r = { "tcp://127.0.0.1:0", s->lanes,   "to",    1, &s->geometry,
                                       s->to_map,           s->metrics, on_recv, s };
    const struct kv_send_options o = { "from",  2, &s->geometry, s->from_map, s->frame_bytes, WAIT_MS, s->metrics,
                                       on_send, s };
    if (kv_recv_open(&s->recv, &r, &err) != OK || kv_send_open(&s->send, &o, &err) != OK) fail(err.text);
}

static void tear_down(struct setup *s)
{
    kv_send_destroy(s->send);
    kv_recv_close(s->recv);
    mailbox_destroy(s->done);
    metrics_destroy(s->metrics);
    kv_map_destroy(s->from_map);
    kv_map_destroy(s->to_map);
    for (int i = 0; i < 2; i++) {
        struct kv_store *kv = i ? &s->to : &s->from;
        s->backend->ops->release(s->backend, kv->memory, kv->bytes);
        mem_free(kv->layers);
    }
    backend_close(s->backend);
    zsock_context_term();
}

/* Seconds of one transfer of n_tokens; it walks through the region from transfer to transfer. */
static double handoff_once(struct setup *s, uint32_t n_tokens)
{
    uint32_t n = (n_tokens + KV_BLOCK_TOKENS - 1) / KV_BLOCK_TOKENS;
    uint32_t at = s->counter * n % N_BLOCKS;
    struct seq_key key = { 1, ++s->counter, 1 };
    kv_block_id from[N_BLOCKS], to[N_BLOCKS];
    const char *endpoints[16];
    uint64_t start, credit = (uint64_t)64 << 20;

    for (uint32_t i = 0; i < n; i++) {
        from[i] = (at + i) % N_BLOCKS;
        to[i] = N_BLOCKS - 1 - from[i];
    }
    for (uint32_t i = 0; i < s->lanes; i++) endpoints[i] = kv_recv_endpoint(s->recv, i);
    if (kv_inbox_add(kv_recv_inbox(s->recv), &(struct kv_offer){ key, 7, to, n, n_tokens, 0, credit }) != OK)
        fail("the offer was refused");
    start = clock_now_us();
    kv_send_begin(s->send, &(struct kv_send_job){ key, 7, "to", endpoints, s->lanes, credit, n_tokens, 0 });
    kv_send_piece(s->send, &key, 0, N_LAYERS, 0, n_tokens, from, NULL);
    kv_send_commit(s->send, &key, 1);
    if (!mailbox_take(s->done, WAIT_MS)) fail("a transfer did not end");
    start = clock_now_us() - start;
    kv_inbox_close(kv_recv_inbox(s->recv), &key);
    return (double)start / 1e6;
}

/* ---- the plain copy ---- */

struct copy {
    int fd; /* receiver's end */
    struct kv_store *to;
    size_t n_bytes;
    uint32_t rounds;
};

static void *copy_main(void *arg)
{
    struct copy *c = arg;
    uint8_t *buf = mem_alloc(READ_BYTES);
    size_t at = 0;

    for (uint32_t i = 0; i < c->rounds; i++) {
        for (size_t got = 0; got < c->n_bytes;) {
            size_t want = c->n_bytes - got < READ_BYTES ? c->n_bytes - got : READ_BYTES;
            ssize_t n = read(c->fd, buf, want);
            if (n <= 0) fail("the copy's connection broke");
            if (at + (size_t)n > c->to->bytes) at = 0;
            memcpy(c->to->memory + at, buf, (size_t)n);
            at += (size_t)n;
            got += (size_t)n;
        }
        if (write(c->fd, "k", 1) != 1) fail("the copy's connection broke");
    }
    mem_free(buf);
    return NULL;
}

static void connect_pair(int fds[2])
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t len = sizeof(a);
    int one = 1, l = socket(AF_INET, SOCK_STREAM, 0);

    fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    if (l < 0 || fds[0] < 0 || bind(l, (struct sockaddr *)&a, sizeof(a)) != 0 || listen(l, 1) != 0 ||
        getsockname(l, (struct sockaddr *)&a, &len) != 0 || connect(fds[0], (struct sockaddr *)&a, sizeof(a)) != 0 ||
        (fds[1] = accept(l, NULL, NULL)) < 0)
        fail("cannot connect over loopback");
    setsockopt(fds[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    close(l);
}

static double copy_once(const struct setup *s, int fd, size_t n_bytes, size_t *at)
{
    uint64_t start = clock_now_us();
    char k;

    if (*at + n_bytes > s->from.bytes) *at = 0;
    for (size_t sent = 0; sent < n_bytes;) {
        ssize_t n = write(fd, s->from.memory + *at + sent, n_bytes - sent);
        if (n <= 0) fail("the copy's connection broke");
        sent += (size_t)n;
    }
    *at += n_bytes;
    if (read(fd, &k, 1) != 1) fail("the copy's connection broke");
    return (double)(clock_now_us() - start) / 1e6;
}

/* ---- rounds ---- */

struct series { /* of one way to move bytes */
    double gb_s[MAX_ROUNDS], cpu_s_gb[MAX_ROUNDS];
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double print_row(const char *what, double mb, struct series *x, uint32_t rounds, double of)
{
    struct bench_spread s = bench_spread_of(x->gb_s, rounds), cpu = bench_spread_of(x->cpu_s_gb, rounds);

    printf("| %-16s | %6.1f | %6.2f | %6.2f | %6.2f | %8.2f |", what, mb, s.median, s.min, s.max, cpu.median);
    if (of > 0)
        printf(" %5.0f %% |\n", 100 * s.median / of);
    else
        printf("         |\n");
    return s.median;
}

static double measure(struct setup *s, uint32_t n_tokens, uint32_t rounds)
{
    static struct series ours, theirs;
    size_t n_bytes = (size_t)kv_cover_expected_bytes(&s->geometry, n_tokens, 0), at = 0;
    struct copy c = { .to = &s->to, .n_bytes = n_bytes, .rounds = rounds + 1 };
    double gb = (double)n_bytes / 1e9, copy, handoff;
    pthread_t thread;
    int fds[2];

    connect_pair(fds);
    c.fd = fds[1];
    if (pthread_create(&thread, NULL, copy_main, &c) != 0) fail("cannot start a thread");
    handoff_once(s, n_tokens); /* both once to warm up */
    copy_once(s, fds[0], n_bytes, &at);
    for (uint32_t i = 0; i < rounds; i++) {
        double cpu = cpu_seconds();
        ours.gb_s[i] = gb / handoff_once(s, n_tokens);
        ours.cpu_s_gb[i] = (cpu_seconds() - cpu) / gb;
        cpu = cpu_seconds();
        theirs.gb_s[i] = gb / copy_once(s, fds[0], n_bytes, &at);
        theirs.cpu_s_gb[i] = (cpu_seconds() - cpu) / gb;
    }
    pthread_join(thread, NULL);
    close(fds[0]);
    close(fds[1]);
    copy = print_row("plain TCP copy", gb * 1e3, &theirs, rounds, 0);
    handoff = print_row("hand-off", gb * 1e3, &ours, rounds, copy);
    return handoff / copy;
}

struct options {
    uint32_t rounds, lanes, frame_kib, min_share;
};

#define AT(field) offsetof(struct options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_NUMBER("rounds", NULL, AT(rounds), 1, MAX_ROUNDS, "15",
                   "transfers of each size, with a plain copy beside each"),
    COMMAND_NUMBER("lanes", NULL, AT(lanes), 1, 16, "2", "connections"),
    COMMAND_NUMBER("frame-kib", NULL, AT(frame_kib), 16, 4096, "1024", "largest frame, KiB"),
    COMMAND_NUMBER("min-share", NULL, AT(min_share), 1, 1000, "",
                   "percent: exit code 1 if a hand-off of 100 MB is slower than this share of the copy"),
};
static const struct command COMMAND = { "baton-bench handoff", NULL, NULL, OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

int bench_handoff(int argc, char **argv)
{
    static const uint32_t tokens[] = { 82, 817, N_TOKENS }; /* 1, 10 and 100 MB */
    struct options o = { 0 };
    int code = command_parse(&COMMAND, &o, argc, argv, NULL);
    if (code >= 0) return code;
    struct setup s = { .lanes = o.lanes, .frame_bytes = o.frame_kib << 10 };
    double share = 0;
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* as nodes do */
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    set_up(&s);
    printf("KV hand-off over loopback: int8, checksums, %u lanes, frames of %u KiB, %u rounds; GB/s\n\n", o.lanes,
           o.frame_kib, o.rounds);
    printf("|                  |     MB | median |    min |    max | CPU s/GB | of copy |\n");
    printf("|------------------|--------|--------|--------|--------|----------|---------|\n");
    for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) share = measure(&s, tokens[i], o.rounds);
    tear_down(&s);
    return share * 100 < o.min_share;
}
