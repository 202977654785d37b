/* commands.c - `baton`: finds the command in its table. */
#include "coordinator/cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct cli_command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    { "serve", cmd_serve, "-m FILE.gguf: a coordinator, a prefill and a decode node on this machine" },
    { "up", cmd_up, "CLUSTER.yaml: every process of a cluster on this machine" },
    { "chat", cmd_chat, "talk to a running cluster" },
    { "status", cmd_status, "nodes of a running cluster, their load and KV use" },
    { "inspect", cmd_inspect, "-m FILE.gguf: what is in a model file" },
    { "doctor", cmd_doctor, "the GPUs of this machine, and what nodes would compute with" },
    { "tokenize", cmd_tokenize, "-m FILE.gguf [TEXT]: text, or standard input, to token ids, or back with --decode" },
};

static int usage(FILE *f, int rc)
{
    fprintf(f, "usage: baton COMMAND [ARGUMENTS]\n\n");
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        fprintf(f, "  %-9s %s\n", commands[i].name, commands[i].help);
    fprintf(f, "\n`baton COMMAND --help` says more.\n");
    return rc;
}

/* What could not be written out is a failure, too, said unless another one was. */
static int finish(int rc)
{
    if (fflush(stdout) == 0 && !ferror(stdout)) return rc;
    if (rc == 0) fprintf(stderr, "error: standard output: %s\n", strerror(errno));
    return rc ? rc : 1;
}

int cli_main(int argc, char **argv)
{
    if (argc < 2) return usage(stderr, EXIT_USAGE);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0)
        return finish(usage(stdout, 0));
    if (strcmp(argv[1], "--version") == 0) {
        printf("baton %s\n", BATON_VERSION);
        return finish(0);
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(argv[1], commands[i].name) == 0) return finish(commands[i].run(argc - 1, argv + 1));
    fprintf(stderr, "baton: unknown command \"%s\"\n\n", argv[1]);
    return usage(stderr, EXIT_USAGE);
}
