/* config_table.h - the one table of options: YAML key, flag, environment name, type, range, default, help.
 *
 * A row serves the file, the environment, the command line and --help; a new option is a new row. */
#ifndef CONFIG_CONFIG_TABLE_H
#define CONFIG_CONFIG_TABLE_H
#include "config/config.h"

#include <stddef.h>

enum config_type {
    OPTION_BOOL,       /* bool; its flag takes no value, or =false */
    OPTION_U32,        /* uint32_t */
    OPTION_SIZE,       /* uint64_t bytes */
    OPTION_SIZE_AUTO,  /* uint64_t bytes; "auto" is 0 */
    OPTION_SIZE32,     /* uint32_t bytes */
    OPTION_DURATION,   /* uint32_t milliseconds */
    OPTION_FD,         /* int, a file descriptor */
    OPTION_CHOICE,     /* char *, one of `choices` */
    OPTION_STRING,     /* char *, anything */
    OPTION_NAME,       /* char *, [A-Za-z0-9._-]{1,63} */
    OPTION_MODEL_NAME, /* char *, such names with a / between them, 63 characters in all */
    OPTION_HOST,       /* char *, a host name or address */
    OPTION_PORT,       /* char *, 0..65535 */
    OPTION_LISTEN,     /* char *, host:port or unix:path */
    OPTION_ENDPOINT,   /* char *, tcp://host:port or ipc://path */
    OPTION_HTTP_RANGE, /* char *, host:port or host:low-high */
    OPTION_TCP,        /* char *, tcp://host:port */
    OPTION_TCP_RANGE,  /* char *, tcp://host:port or tcp://host:low-high */
    OPTION_CPUS,       /* char *, "0-3,6" */
};

/* Where a row's field lives, which is also its section in the file. */
enum config_scope {
    SCOPE_ARGS,   /* struct config_args: this process only, not in the file */
    SCOPE_GLOBAL, /* struct config */
    SCOPE_MODEL,  /* struct config_model */
    SCOPE_NODE,   /* struct config_node: entries of prefill and decode */
};

/* Roles as bits: who takes the flag and the environment name, and shows the row in --help. */
#define ROLE_BIT(role) (1u << (role))
#define ROLES_NODE     (ROLE_BIT(CONFIG_PREFILL) | ROLE_BIT(CONFIG_DECODE))
#define ROLES_API      (ROLE_BIT(CONFIG_COORDINATOR) | ROLE_BIT(CONFIG_UP) | ROLE_BIT(CONFIG_SERVE))
#define ROLES_ALL      (ROLES_NODE | ROLES_API)

struct config_option {
    enum config_scope scope;
    /* "coordinator", "kv", ...; of a node: a map within its entry, "parallel", or NULL.  NULL in args and models. */
    const char *section;
    const char *key;
    const char *flag;  /* without dashes; NULL: file and environment only */
    const char *alias; /* a second flag; one letter: with one dash */
    unsigned roles;
    enum config_type type;
    size_t offset;
    uint64_t min, max, step; /* numbers; step 0: any */
    const char *choices;     /* "auto|on|off" */
    const char *fallback;    /* default, as text; "" = not set */
    const char *help;
    uint32_t list;    /* the field is a struct config_list of at most so many texts; 0: one value */
    const char *word; /* how help calls the value; NULL: VALUE */
};

/* Options of the process itself. */
struct config_args {
    char *config, *name, *model, *model_name, *host, *port;
    bool check_only, help;
    int weights_fd, ready_fd;
};

extern const struct config_option config_table[];
extern const uint32_t config_table_rows;

/* The row of a key in the file; section NULL and scope for models and nodes. */
const struct config_option *config_table_key(enum config_scope scope, const char *section, const char *key);
/* The environment name of `row` as `role` reads it, such as BATON_KV_LANES; "" if it has none. */
const char *config_table_env(const struct config_option *row, enum config_role role, char *buf, size_t cap);
/* Sets every field of `scope` below `base` (zeroed before) to its default. */
void config_table_defaults(enum config_scope scope, void *base);
/* Frees the strings of `scope` below `base`. */
void config_table_free(enum config_scope scope, void *base);
/* Whether a node row makes sense for decode nodes only. */
bool config_is_decode_only(const struct config_option *row);
/* Whether values of a row are texts; its field is a char *, or a struct config_list if the row is a list. */
bool config_type_is_text(enum config_type type);
/* Whether values of a row are addresses that its process binds. */
bool config_type_is_bound(enum config_type type);
/* The candidate closest to `word` if it is close enough to be what was meant, else NULL. */
const char *config_nearest(const char *word, const char *const *candidates, uint32_t n);
#endif
