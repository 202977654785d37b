/* log.h - one key=value line per event, on stderr.
 *
 *   log_info("request_done", "req=%s tokens=%u", id, n);
 *   ts=2026-01-01T12:00:00.123Z level=info node=p0 event=request_done req=... tokens=...
 *
 * Values that come from outside go through log_quote().  Nothing logs per token or per block.  What a stranger's bytes
 * can cause uses the _limited forms: at most LOG_LIMIT_BURST lines at once and LOG_LIMIT_PER_S a second from each
 * place; how many were left out is a line of its own. */
#ifndef BASE_LOG_H
#define BASE_LOG_H
#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* `node` (copied) names this process in every line. */
void log_init(enum log_level level, const char *node);
void log_write(enum log_level level, const char *event, const char *fmt, ...) PRINTF_LIKE(3, 4);
/* `text` as a quoted, escaped value in one of eight per-thread buffers; long text is cut at 400 bytes. */
const char *log_quote(const char *text);
enum status log_level_parse(const char *word, enum log_level *out) MUST_CHECK;

/* One place's token bucket; zero is a full one.  Static storage: it stays known for log_left_out(). */
struct log_limit {
    const char *event;
    uint64_t refilled_us, left_out;
    uint32_t tokens;
    struct log_limit *next;
};
#define LOG_LIMIT_BURST 20
#define LOG_LIMIT_PER_S 2
bool log_limit_take(struct log_limit *l, const char *event); /* may a line be written?  Counts it if not. */
void log_left_out(void); /* for ticks: once a second, a line for every event of which lines were left out */

#define log_limited(level, event, ...)                                                                                 \
    do {                                                                                                               \
        static struct log_limit log_limit_;                                                                            \
        if (log_limit_take(&log_limit_, event)) log_write(level, event, __VA_ARGS__);                                  \
    } while (0)
#define log_error_limited(event, ...) log_limited(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn_limited(event, ...)  log_limited(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info_limited(event, ...)  log_limited(LOG_LEVEL_INFO, event, __VA_ARGS__)

#define log_error(event, ...) log_write(LOG_LEVEL_ERROR, event, __VA_ARGS__)
#define log_warn(event, ...)  log_write(LOG_LEVEL_WARN, event, __VA_ARGS__)
#define log_info(event, ...)  log_write(LOG_LEVEL_INFO, event, __VA_ARGS__)
#define log_debug(event, ...) log_write(LOG_LEVEL_DEBUG, event, __VA_ARGS__)
#endif
