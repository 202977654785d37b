/* log.h - one key=value line per event, on stderr.
 *
 *   log_info("request_done", "req=%s tokens=%u", id, n);
 *   ts=2026-01-01T12:00:00.123Z level=info node=p0 event=request_done req=... tokens=...
 *
 * Values that come from outside go through log_quote().  Nothing logs per token or per block. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include "base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `node` (copied) names this process in every line. */
void log_init(enum log_level level, const char *node);
void log_write(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* `text` as a quoted, escaped value in one of eight per-thread buffers; long text is cut at 400 bytes. */
const char *log_quote(const char *text);
enum status log_level_parse(const char *word, enum log_level *out) MUST_CHECK;

#define log_error(event, ...) log_write(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_write(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_write(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_write(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#endif
