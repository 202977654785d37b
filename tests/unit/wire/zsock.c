/* zsock: a watched socket hears every message, also those that come in while its thread sends. */
#include "wire/zsock.h"

#include "base/mem.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <zmq.h>

#define ROUNDS 2000

struct side {
    struct zsock *z;
    int got;
    uv_loop_t *loop;
};

static const struct zsock_options options = { .max_message_bytes = 1024, .reconnect_ms = 100 };

static void on_router(void *ctx, struct zsock *z)
{
    struct side *s = ctx;
    char id[256], text[64];
    int n, k;

    while ((n = zmq_recv(zsock_raw(z), id, sizeof(id), ZMQ_DONTWAIT)) >= 0) {
        k = zmq_recv(zsock_raw(z), text, sizeof(text), 0);
        s->got++;
        zmq_send(zsock_raw(z), id, (size_t)n, ZMQ_SNDMORE);
        zmq_send(zsock_raw(z), text, (size_t)k, 0);
    }
}

static void on_dealer(void *ctx, struct zsock *z)
{
    struct side *s = ctx;
    char text[64];

    while (zmq_recv(zsock_raw(z), text, sizeof(text), ZMQ_DONTWAIT) >= 0)
        if (++s->got < ROUNDS)
            zmq_send(zsock_raw(z), "x", 1, 0);
        else
            uv_stop(s->loop);
}

Test(zsock, ping_pong_over_one_loop_never_stalls)
{
    uv_loop_t loop;
    struct side router = { .loop = &loop }, dealer = { .loop = &loop };
    char *bound;

    uv_loop_init(&loop);
    cr_assert_eq(zsock_open(&router.z, ZSOCK_ROUTER, &options, NULL), OK);
    cr_assert_eq(zsock_bind(router.z, "tcp://127.0.0.1:0", &bound, NULL), OK);
    cr_assert_neq(strcmp(bound, "tcp://127.0.0.1:0"), 0);
    cr_assert_eq(zsock_open(&dealer.z, ZSOCK_DEALER, &options, NULL), OK);
    cr_assert_eq(zsock_connect(dealer.z, bound, NULL), OK);
    cr_assert_eq(zsock_watch(router.z, &loop, on_router, &router, NULL), OK);
    cr_assert_eq(zsock_watch(dealer.z, &loop, on_dealer, &dealer, NULL), OK);
    for (int i = 0; i < 3; i++) zmq_send(zsock_raw(dealer.z), "x", 1, 0);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_geq(dealer.got, ROUNDS);
    zsock_close(router.z);
    zsock_close(dealer.z);
    uv_run(&loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&loop), 0);
    mem_free(bound);
    zsock_context_term();
}

Test(zsock, binds_a_name)
{
    struct zsock *z;
    struct error err = { 0 };
    char *bound = NULL;
    cr_assert_eq(zsock_open(&z, ZSOCK_ROUTER, &options, NULL), OK);
    cr_assert_eq(zsock_bind(z, "tcp://localhost:0", &bound, &err), OK, "%s", err.text);
    cr_assert(strncmp(bound, "tcp://127.0.0.1:", 16) == 0 || strncmp(bound, "tcp://[::1]:", 12) == 0, "%s", bound);
    mem_free(bound);
    cr_assert_eq(zsock_bind(z, "tcp://nobody.invalid:0", &bound, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "tcp://nobody.invalid:0: no interface and no host has that name"), "%s", err.text);
    zsock_close(z);
    zsock_context_term();
}

Test(zsock, names_what_it_cannot_bind)
{
    struct zsock *z;
    struct error err;
    char *bound = NULL;

    cr_assert_eq(zsock_open(&z, ZSOCK_ROUTER, &options, NULL), OK);
    cr_assert_eq(zsock_bind(z, "nonsense", &bound, &err), ERR_INVALID);
    cr_assert(strstr(err.text, "nonsense"));
    zsock_close(z);
    zsock_context_term();
}

/* A host without /etc/hosts, which this process alone sees. */
Test(zsock, knows_localhost_where_no_file_does)
{
    struct zsock *a, *b;
    struct error err = { 0 };
    char *bound = NULL, text[64];
    if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount("/dev/null", "/etc/hosts", NULL, MS_BIND, NULL) != 0)
        cr_skip_test("hiding /etc/hosts takes a mount, which is not permitted");
    cr_assert_eq(zsock_open(&a, ZSOCK_ROUTER, &options, NULL), OK);
    cr_assert_eq(zsock_bind(a, "tcp://localhost:0", &bound, &err), OK, "%s", err.text);
    cr_assert_eq(strncmp(bound, "tcp://127.0.0.1:", 16), 0, "%s", bound);
    snprintf(text, sizeof(text), "tcp://localhost%s", strrchr(bound, ':'));
    cr_assert_eq(zsock_open(&b, ZSOCK_DEALER, &options, NULL), OK);
    cr_assert_eq(zsock_connect(b, text, &err), OK);
    zmq_send(zsock_raw(b), "x", 1, 0);
    zmq_pollitem_t item = { zsock_raw(a), 0, ZMQ_POLLIN, 0 };
    cr_assert_eq(zmq_poll(&item, 1, 10000), 1, "nothing came by that name");
    mem_free(bound);
    zsock_close(b);
    zsock_close(a);
    zsock_context_term();
}
