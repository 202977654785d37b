/* flags.h - the words of a command line, matched with the rows of an option table. */
#ifndef CONFIG_FLAGS_H
#define CONFIG_FLAGS_H
#include "config/config_table.h"

#define FLAGS_MAX_ROWS 128

struct flags {
    const struct config_option *rows;
    uint32_t n_rows;
    unsigned roles; /* rows of these roles alone; 0: all */
    int argc;
    char **argv;
    const struct config_option *operand; /* the row of a word that is no flag; NULL: none */
    bool only_operands;                  /* "--" was read */
    int at;                              /* the last word that was read, 0 before the first */
    const char *given[FLAGS_MAX_ROWS];   /* what each row was given so far */
};

/* Reads "--flag value", "--flag=value", "-f value" or an operand, for which *row is f->operand; all
 * words behind "--" are operands.  *value NULL: nothing more.  ERR_INVALID, with what was given and the nearest flag,
 * for one that has no row or lacks its value, and for one that was given another value before, unless it is a list. */
enum status flags_next(struct flags *f, const struct config_option **row, const char **value,
                       struct error *err) MUST_CHECK;
const char *flags_word(const struct config_option *row); /* how help calls the value */
/* "-m, --model FILE": how help shows the row, under the name `flag`. */
const char *flags_show(const struct config_option *row, const char *flag, char *buf, size_t cap);
#endif
