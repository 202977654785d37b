/* main.c - baton-coordinator: configuration, loop, signals, exit code. */
#include "base/log.h"
#include "base/start_report.h"
#include "config/config.h"
#include "coordinator/coordinator.h"
#include "coordinator/dispatch.h"
#include "http/http_server.h"
#include "wire/zsock.h"

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
    if (p->co->draining)
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

/* The address that was asked for, with the port that it got. */
static void say_ready(const struct coordinator *co, int ready_fd)
{
    const char *http = co->cfg->coordinator.http, *colon = strrchr(http, ':');
    char line[640];
    int n = snprintf(line, sizeof(line), "ready coordinator http=%.*s:%u control=%s\n",
                     (int)(colon ? colon - http : (long)strlen(http)), http, http_server_port(co->http),
                     dispatch_endpoint(co->dispatch));
    log_info("serving", "http=%.*s:%u control=%s", (int)(colon ? colon - http : (long)strlen(http)), http,
             http_server_port(co->http), dispatch_endpoint(co->dispatch));
    if (ready_fd < 0 || n < 0) return;
    if (write(ready_fd, line, (size_t)n) != n) log_warn("ready_unsent", "fd=%d", ready_fd);
    close(ready_fd);
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

int main(int argc, char **argv)
{
    struct config_run cfg;
    struct error err;
    enum log_level level = LOG_LEVEL_INFO;
    if (config_load(&cfg, CONFIG_COORDINATOR, argc, argv, &err) != OK) {
        if (!start_report_failed(cfg.ready_fd, err.text)) fprintf(stderr, "baton-coordinator: %s\n", err.text);
        return EXIT_CONFIG;
    }
    int rc = 0;
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
