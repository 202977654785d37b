/* log: one line per event, filtered by level, with foreign text made harmless. */
#include "base/log.h"

#include "base/clock.h"

#include <criterion/criterion.h>
#include <string.h>
#include <unistd.h>

static int saved_stderr, pipe_fds[2];

static void capture(void)
{
    cr_assert(pipe(pipe_fds) == 0);
    saved_stderr = dup(STDERR_FILENO);
    dup2(pipe_fds[1], STDERR_FILENO);
    close(pipe_fds[1]);
}

static const char *captured(void)
{
    static char text[16384];
    dup2(saved_stderr, STDERR_FILENO);
    ssize_t n = read(pipe_fds[0], text, sizeof(text) - 1);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

Test(log, a_line_has_time_level_node_and_event)
{
    int y, mo, d, h, mi, s, ms, end = 0;
    log_init(LOG_LEVEL_INFO, "p0");
    capture();
    log_info("request_done", "req=%s tokens=%d", "r1", 7);
    log_debug("unseen", "x=1");
    const char *text = captured();
    cr_assert_eq(sscanf(text, "ts=%d-%d-%dT%d:%d:%d.%dZ%n", &y, &mo, &d, &h, &mi, &s, &ms, &end), 7);
    cr_assert_str_eq(text + end, " level=info node=p0 event=request_done req=r1 tokens=7\n");
}

Test(log, an_event_stays_one_line)
{
    char longer[6000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    log_init(LOG_LEVEL_DEBUG, NULL);
    capture();
    log_error("bad", "text=%s", "a\nb\r\x1b[31m");
    log_warn("long", "text=%s", longer);
    const char *text = captured(), *first_end = strchr(text, '\n');
    cr_assert(strstr(text, "text=a b  [31m\n"));
    cr_assert_eq(strchr(first_end + 1, '\n')[1], '\0');
    cr_assert(strlen(first_end) <= 4100);
}

Test(log, quoted_values_cannot_break_out)
{
    cr_assert_str_eq(log_quote("plain \xC3\xA9"), "\"plain \xC3\xA9\"");
    cr_assert_str_eq(log_quote("a\"b\\c\n\r\t\x1b\x7f"), "\"a\\\"b\\\\c\\n\\r\\t\\x1b\\x7f\"");
    cr_assert_str_eq(log_quote("\xff\xc2\x9b"), "\"\\xff\\xc2\\x9b\"");
    cr_assert_str_eq(log_quote(NULL), "\"\"");
    char longer[2000];
    memset(longer, '\x01', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    const char *q = log_quote(longer);
    cr_assert(strlen(q) <= 408);
    cr_assert_str_eq(q + strlen(q) - 4, "...\"");
}

Test(log, eight_quotes_live_at_once)
{
    const char *q[8];
    char text[2] = "0";
    for (int i = 0; i < 8; i++) {
        text[0] = (char)('0' + i);
        q[i] = log_quote(text);
    }
    for (int i = 0; i < 8; i++) cr_assert_eq(q[i][1], '0' + i);
}

Test(log, levels_have_names)
{
    enum log_level level;
    cr_assert(log_level_parse("debug", &level) == OK && level == LOG_LEVEL_DEBUG);
    cr_assert(log_level_parse("error", &level) == OK && level == LOG_LEVEL_ERROR);
    cr_assert(log_level_parse("loud", &level) == ERR_INVALID && level == LOG_LEVEL_ERROR);
}

Test(log, a_flood_of_one_event_is_cut_and_counted)
{
    log_init(LOG_LEVEL_INFO, "p0");
    clock_set_for_test(1000000);
    capture();
    for (int i = 0; i < 1000; i++) log_warn_limited("flood", "i=%d", i);
    log_warn_limited("other", "i=%d", 0); /* a place of its own is not cut */
    log_left_out();
    clock_set_for_test(9000000);
    log_left_out(); /* said once */
    const char *text = captured();
    size_t lines = 0;
    for (const char *p = text; (p = strstr(p, "event=flood")); p++) lines++;
    cr_assert_eq(lines, LOG_LIMIT_BURST);
    cr_assert(strstr(text, "event=other"));
    const char *told = strstr(text, "event=log_left_out of=flood lines=980\n");
    cr_assert(told);
    cr_assert_null(strstr(told + 1, "event=log_left_out"));
    clock_set_for_test(0);
}

Test(log, a_cut_event_comes_back_with_time)
{
    struct log_limit l = { 0 };
    clock_set_for_test(1000000);
    for (int i = 0; i < LOG_LIMIT_BURST; i++) cr_assert(log_limit_take(&l, "x"));
    cr_assert(!log_limit_take(&l, "x"));
    clock_set_for_test(1000000 + 1000000 / LOG_LIMIT_PER_S);
    cr_assert(log_limit_take(&l, "x"));
    cr_assert(!log_limit_take(&l, "x"));
    clock_set_for_test(1000000 + 3600 * 1000000ull);
    for (int i = 0; i < LOG_LIMIT_BURST; i++) cr_assert(log_limit_take(&l, "x"));
    cr_assert(!log_limit_take(&l, "x"));
    cr_assert_eq(l.left_out, 3);
    clock_set_for_test(0);
}
