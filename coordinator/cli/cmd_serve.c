/* cmd_serve.c - `baton serve` and `baton up`: configuration in, a running cluster out. */
#include "base/log.h"
#include "config/config.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/launch.h"
#include "coordinator/cli/share_cpus.h"
#include "coordinator/cli/share_gpus.h"

#include <stdio.h>

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
        if (role == CONFIG_SERVE) share_threads_of_host(&run.cfg);
        if (role == CONFIG_SERVE) serve_on_one_gpu(&run.cfg);
        share_threads(&run.cfg);
        share_gpus(&run.cfg);
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
