/* child.h - one child process of a cluster on this host: start, wait for its ready line, stop. */
#ifndef CLI_CHILD_H
#define CLI_CHILD_H
#include "base/cpus.h"
#include "base/error.h"

#include <sys/types.h>

#define CHILD_MAX_ARGS 16
#define CHILD_LINE_MAX 1024

struct child {
    char name[80];             /* for messages */
    pid_t pid;                 /* 0 = not running */
    int ready_fd;              /* the parent's end of the pipe, -1 when closed */
    char line[CHILD_LINE_MAX]; /* what came through it so far */
    size_t n_line;
    bool ready;  /* the whole line is there, and says so */
    bool failed; /* the whole line is there, and says why not */
    int status;  /* of its end, as waitpid() gives it */
};

/* Starts `binary` from the folder of this program with `args` (NULL-terminated, without argv[0]), in a process group
 * of its own, so that a terminal's Ctrl-C reaches the parent alone; the child gets SIGTERM when the parent dies.
 * Added to args: "--config" for the file behind config_fd, "--ready-fd", and "--weights-fd" unless weights_fd is -1.
 * It runs on `cpus`, unless that is NULL or empty.
 * BATON_* variables are not passed on: what they said is in the configuration already. */
enum status child_start(struct child *c, const char *name, const char *binary, const char *const *args, int config_fd,
                        int weights_fd, const struct cpu_list *cpus, struct error *err) MUST_CHECK;
/* Reads what is there; sets c->ready or c->failed once the line is complete. */
void child_read_ready(struct child *c);
/* Whether it cannot become ready any more: it said so, or it is gone and its pipe has been read to its end. */
bool child_start_is_over(const struct child *c);
/* Whether its end is one that was asked for: exit code 0, or a signal by which processes are told to stop. */
bool child_ended_cleanly(const struct child *c);
/* The sentence for a child that failed or ended: its own reason, or how it ended. */
void child_explain(const struct child *c, char *buf, size_t cap);
/* Copies the value of `key=` in the ready line; false if it is not there. */
bool child_ready_value(const struct child *c, const char *key, char *buf, size_t cap);
void child_signal(const struct child *c, int sig);
#endif
