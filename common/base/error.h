/* error.h - a status with the sentence that a person needs to act on it.
 *
 * The last argument of calls where a person can act: load, config, connect, parse.  A sentence says
 * what is wrong, where, and what would be right.  NULL is fine everywhere. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H
#include "base/status.h"

#define ERROR_TEXT_MAX 512

struct error {
    enum status status;
    char text[ERROR_TEXT_MAX];
};

/* Fills `err` (if any) and returns `st`, so that a failing line reads `return error_set(err, ...)`.
 * Text longer than the field is cut, never split inside a UTF-8 sequence. */
enum status error_set(struct error *err, enum status st, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* Puts "where: " before the text that is there, as the error travels up.  Returns err's status. */
enum status error_prefix(struct error *err, const char *fmt, ...) PRINTF_LIKE(2, 3);
#endif
