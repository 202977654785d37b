/* log.c - builds one line per event and writes it with one call. */
#include "base/log.h"

#include "base/clock.h"
#include "base/utf8.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES  4096
#define QUOTE_MAX_BYTES 400
#define QUOTE_BUFFERS   8

static const char *const level_words[] = { "error", "warn", "info", "debug" };

/* Set by log_init() before threads start; the level is atomic because any thread reads it. */
static _Atomic int max_level = LOG_LEVEL_INFO;
static char node_name[64] = "-";

void log_init(enum log_level level, const char *node)
{
    atomic_store_explicit(&max_level, (int)level, memory_order_relaxed);
    snprintf(node_name, sizeof(node_name), "%s", node && *node ? node : "-");
}

static size_t add_head(char *line, size_t cap, enum log_level level, const char *event)
{
    struct timespec now;
    struct tm utc;
    char ts[32];
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    strftime(ts, sizeof(ts), "%Y-%m-%dT%H:%M:%S", &utc);
    int n = snprintf(line, cap, "ts=%s.%03ldZ level=%s node=%s event=%s", ts, now.tv_nsec / 1000000, level_words[level],
                     node_name, event);
    return n < 0 ? 0 : (size_t)n < cap ? (size_t)n : cap - 1;
}

void log_write(enum log_level level, const char *event, const char *fmt, ...)
{
    if ((int)level > atomic_load_explicit(&max_level, memory_order_relaxed)) return;
    char line[LINE_MAX_BYTES];
    size_t cap = sizeof(line) - 1; /* room for the newline */
    size_t n = add_head(line, cap, level, event);
    if (fmt[0] != '\0' && n + 2 < cap) {
        line[n++] = ' ';
        va_list ap;
        va_start(ap, fmt);
        int more = vsnprintf(line + n, cap - n, fmt, ap);
        va_end(ap);
        if (more > 0) n += (size_t)more < cap - n ? (size_t)more : cap - n - 1;
    }
    for (size_t i = 0; i < n; i++) { /* one event stays one line, whatever a value held */
        if ((unsigned char)line[i] < 0x20) line[i] = ' ';
    }
    line[n++] = '\n';
    ssize_t done = write(STDERR_FILENO, line, n);
    (void)done; /* nobody is left to tell */
}

static pthread_mutex_t limits_lock = PTHREAD_MUTEX_INITIALIZER;
static struct log_limit *limits; /* all that were ever asked */

static void refill(struct log_limit *l, uint64_t now)
{
    uint64_t more = now > l->refilled_us ? (now - l->refilled_us) * LOG_LIMIT_PER_S / 1000000 : 0;
    if (more == 0) return;
    l->tokens = more < LOG_LIMIT_BURST - l->tokens ? l->tokens + (uint32_t)more : LOG_LIMIT_BURST;
    l->refilled_us = now;
}

bool log_limit_take(struct log_limit *l, const char *event)
{
    uint64_t now = clock_now_us();
    bool may;

    pthread_mutex_lock(&limits_lock);
    if (!l->event) {
        *l = (struct log_limit){ .event = event, .refilled_us = now, .tokens = LOG_LIMIT_BURST, .next = limits };
        limits = l;
    }
    refill(l, now);
    may = l->tokens > 0;
    if (may)
        l->tokens--;
    else
        l->left_out++;
    pthread_mutex_unlock(&limits_lock);
    return may;
}

void log_left_out(void)
{
    static uint64_t told_us;
    uint64_t now = clock_now_us();

    pthread_mutex_lock(&limits_lock);
    if (now - told_us < 1000000) {
        pthread_mutex_unlock(&limits_lock);
        return;
    }
    told_us = now;
    for (struct log_limit *l = limits; l; l = l->next) {
        if (l->left_out == 0) continue;
        log_warn("log_left_out", "of=%s lines=%llu", l->event, (unsigned long long)l->left_out);
        l->left_out = 0;
    }
    pthread_mutex_unlock(&limits_lock);
}

/* Appends the escape of one byte that may not stand in a quoted value. */
static size_t put_escape(char *dst, unsigned char c)
{
    static const char hex[] = "0123456789abcdef";
    char letter = c == '"' || c == '\\' ? (char)c : c == '\n' ? 'n' : c == '\r' ? 'r' : c == '\t' ? 't' : 0;
    dst[0] = '\\';
    if (letter) {
        dst[1] = letter;
        return 2;
    }
    dst[1] = 'x';
    dst[2] = hex[c >> 4];
    dst[3] = hex[c & 15];
    return 4;
}

const char *log_quote(const char *text)
{
    static _Thread_local char buffers[QUOTE_BUFFERS][QUOTE_MAX_BYTES + 8];
    static _Thread_local unsigned next;
    char *out = buffers[next++ % QUOTE_BUFFERS];
    size_t n = 0, i = 0, len = text ? strlen(text) : 0;
    out[n++] = '"';
    while (i < len && n <= QUOTE_MAX_BYTES - 4) {
        unsigned char c = (unsigned char)text[i];
        size_t seq = utf8_seq_len(text + i, len - i);
        bool c1_control = seq == 2 && c == 0xC2 && (unsigned char)text[i + 1] < 0xA0;
        if (seq == 0 || c1_control || c < 0x20 || c == 0x7F || c == '"' || c == '\\') {
            n += put_escape(out + n, c);
            i++;
        } else {
            memcpy(out + n, text + i, seq);
            n += seq;
            i += seq;
        }
    }
    if (i < len) {
        memcpy(out + n, "...", 3);
        n += 3;
    }
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

enum status log_level_parse(const char *word, enum log_level *out)
{
    for (int i = 0; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *out = (enum log_level)i;
            return OK;
        }
    }
    return ERR_INVALID;
}
