/* program.c - baton-coordinator: configuration, loop, signals, exit code. */
#include "coordinator/program.h"

#include "base/log.h"
#include "base/start_report.h"
#include "base/strbuf.h"
#include "config/config.h"
#include "coordinator/cluster/dispatch.h"
#include "coordinator/coordinator.h"
#include "http/http_server.h"
#include "wire/zsock.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define EXIT_CONFIG 2

struct program {
    struct coordinator *co;
    uv_signal_t signals[3];
};

static void on_signal(uv_signal_t *s, int number)
{
    struct program *p = s->data;
    if (p->co->sv.draining)
        coordinator_stop(p->co);
    else
        coordinator_drain(p->co);
    if (!p->co->stopped) return;
    for (size_t i = 0; i < sizeof(p->signals) / sizeof(p->signals[0]); i++)
        if (!uv_is_closing((uv_handle_t *)&p->signals[i])) uv_close((uv_handle_t *)&p->signals[i], NULL);
}

static void watch_signals(struct program *p, uv_loop_t *loop)
{
    static const int numbers[] = { SIGTERM, SIGINT, SIGQUIT };
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        uv_signal_init(loop, &p->signals[i]);
        p->signals[i].data = p;
        uv_signal_start(&p->signals[i], on_signal, numbers[i]);
        uv_unref((uv_handle_t *)&p->signals[i]); /* the loop ends when everything else has */
    }
}

/* The addresses that were asked for, with the ports that they got. */
static void say_ready(const struct coordinator *co, int ready_fd)
{
    const char *control = dispatch_endpoint(co->sv.dispatch), *name, *first = http_server_address(co->http, 0);
    struct strbuf all = STRBUF_INIT, line = STRBUF_INIT;
    for (uint32_t i = 0; (name = http_server_address(co->http, i)); i++) {
        strbuf_addf(&all, "%s%s", i ? "," : "", name);
        bool is_file = strncmp(first, HTTP_UNIX, strlen(HTTP_UNIX)) == 0;
        if (is_file && i < co->sv.cfg->coordinator.http.n) first = name; /* a parent would rather have a port */
    }
    strbuf_addf(&line, "ready coordinator http=%s control=%s all=%s\n", first, control, strbuf_cstr(&all));
    log_info("serving", "http=%s control=%s", strbuf_cstr(&all), control);
    if (ready_fd >= 0) {
        if (write(ready_fd, line.s, line.n) != (ssize_t)line.n) log_warn("ready_unsent", "fd=%d", ready_fd);
        close(ready_fd);
    }
    strbuf_fini(&all);
    strbuf_fini(&line);
}

static int run(const struct config_run *cfg)
{
    struct program p = { 0 };
    struct error err;
    uv_loop_t loop;
    uv_loop_init(&loop);
    if (coordinator_create(&p.co, &loop, &cfg->cfg, &err) != OK) {
        if (!start_report_failed(cfg->ready_fd, err.text)) log_error("start_failed", "reason=%s", log_quote(err.text));
        return 1;
    }
    watch_signals(&p, &loop);
    say_ready(p.co, cfg->ready_fd);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (size_t i = 0; i < sizeof(p.signals) / sizeof(p.signals[0]); i++)
        if (!uv_is_closing((uv_handle_t *)&p.signals[i])) uv_close((uv_handle_t *)&p.signals[i], NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    coordinator_destroy(p.co);
    uv_loop_close(&loop);
    zsock_context_term();
    return 0;
}

int coordinator_main(int argc, char **argv)
{
    struct config_run cfg;
    struct error err;
    enum log_level level = LOG_LEVEL_INFO;
    if (config_load(&cfg, CONFIG_COORDINATOR, argc, argv, &err) != OK) {
        if (!start_report_failed(cfg.ready_fd, err.text)) fprintf(stderr, "baton-coordinator: %s\n", err.text);
        return EXIT_CONFIG;
    }
    int rc = 0;
    /* Large bodies and answers are mapped by themselves: giving one back trims no heap under its lock. */
    mallopt(M_MMAP_THRESHOLD, 4 << 20);
    if (!cfg.help && !cfg.check_only) {
        if (log_level_parse(cfg.cfg.log.level, &level) != OK) level = LOG_LEVEL_INFO;
        log_init(level, "coordinator");
        rc = run(&cfg);
    } else if (cfg.check_only) {
        printf("configuration is fine\n");
    }
    config_fini(&cfg);
    return rc;
}
