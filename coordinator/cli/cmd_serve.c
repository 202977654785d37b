/* cmd_serve.c - `baton serve` and `baton up`: configuration in, a running cluster out. */
#include "base/log.h"
#include "config/config.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/launch.h"

#include <sched.h>
#include <stdio.h>

/* --threads of serve is what the host gives in all: both nodes compute at the same time. */
static void split_threads(struct config *cfg)
{
    cpu_set_t set;
    uint32_t n = cfg->prefill[0].threads;
    if (n == 0 && sched_getaffinity(0, sizeof(set), &set) == 0) n = (uint32_t)CPU_COUNT(&set);
    cfg->decode[0].threads = n > 1 ? n / 2 : 1;
    cfg->prefill[0].threads = n > 1 ? n - n / 2 : 1;
}

static int run_role(enum config_role role, int argc, char **argv)
{
    struct config_run run;
    struct error err = { 0 };
    if (config_load(&run, role, argc, argv, &err) != OK) {
        fprintf(stderr, "error: %s\n", err.text);
        return EXIT_USAGE;
    }
    int rc = 0;
    if (run.check_only)
        printf("configuration is fine: %u prefill, %u decode\n", run.cfg.n_prefill, run.cfg.n_decode);
    else if (!run.help) {
        enum log_level level = LOG_LEVEL_INFO;
        if (log_level_parse(run.cfg.log.level, &level) != OK) level = LOG_LEVEL_INFO;
        log_init(level, "baton");
        if (role == CONFIG_SERVE) split_threads(&run.cfg);
        rc = launch_cluster(&run.cfg);
    }
    config_fini(&run);
    return rc;
}

int cmd_serve(int argc, char **argv)
{
    return run_role(CONFIG_SERVE, argc, argv);
}

int cmd_up(int argc, char **argv)
{
    return run_role(CONFIG_UP, argc, argv);
}
