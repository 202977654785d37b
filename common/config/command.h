/* command.h - the options of a command that no file configures: one table parses, checks and prints them.
 *
 * Fields are those of config_table.h.  A text's field is NULL where nothing was given and the row has no default; a row
 * whose default is NULL must be given, but for switches, which are off. */
#ifndef CONFIG_COMMAND_H
#define CONFIG_COMMAND_H
#include "config/config_table.h"

#define EXIT_USAGE 2 /* bad flags or configuration */

/* Rows: flag, letter or NULL, offset, ..., default, help. */
#define COMMAND_TEXT(flag_, letter, at, word_, default_, help_)                                                        \
    {                                                                                                                  \
        .flag = flag_, .alias = letter, .type = OPTION_STRING, .offset = at, .word = word_, .fallback = default_,      \
        .help = help_                                                                                                  \
    }
#define COMMAND_CHOICE(flag_, letter, at, choices_, default_, help_)                                                   \
    {                                                                                                                  \
        .flag = flag_, .alias = letter, .type = OPTION_CHOICE, .offset = at, .choices = choices_,                      \
        .fallback = default_, .help = help_                                                                            \
    }
#define COMMAND_NUMBER(flag_, letter, at, min_, max_, default_, help_)                                                 \
    {                                                                                                                  \
        .flag = flag_, .alias = letter, .type = OPTION_U32, .offset = at, .min = min_, .max = max_, .word = "N",       \
        .fallback = default_, .help = help_                                                                            \
    }
#define COMMAND_SWITCH(flag_, letter, at, help_)                                                                       \
    {                                                                                                                  \
        .flag = flag_, .alias = letter, .type = OPTION_BOOL, .offset = at, .help = help_                               \
    }

struct command {
    const char *name;     /* "baton-bench load" */
    const char *operands; /* how help shows them; NULL: there are none */
    const char *about;    /* lines below the usage, each with its line end; NULL: none */
    const struct config_option *options;
    uint32_t n_options;
};

/* Fills the struct at `base` (zeroed before) from argv[1...]; operands, *n_operands of them, are moved to argv[1...].
 * -1: go on, and command_free() later; else the exit code, after --help or a sentence on stderr. */
int command_parse(const struct command *c, void *base, int argc, char **argv, int *n_operands) MUST_CHECK;
void command_free(const struct command *c, void *base);
#endif
