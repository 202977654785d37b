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

Test(log, a_line_has_a_bound)
{
    char longer[6000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    log_init(LOG_LEVEL_DEBUG, longer);
    capture();
    log_error("e", "%s", longer);
    log_error(longer, "%s", "unseen");
    log_error("short", "%s", "");
    log_error("bare", "%s", "x");
    const char *text = captured(), *second = strchr(text, '\n') + 1, *third = strchr(second, '\n') + 1;
    cr_assert_eq(second - text, 4095);
    cr_assert_eq(third - second, 4095);
    cr_assert(strncmp(second - 3, "xx\n", 3) == 0 && strncmp(third - 3, "xx\n", 3) == 0);
    const char *node = strstr(text, " node=") + 6;
    cr_assert_eq(strcspn(node, " "), 63, "a name has a bound, too");
    cr_assert(strstr(third, " event=bare x\n"));
}

Test(log, a_level_hides_those_above_it)
{
    static const char *const events[] = { "event=e1", "event=w1", "event=i1", "event=d1" };
    for (int level = 0; level < 4; level++) {
        log_init((enum log_level)level, "");
        capture();
        log_error("e1", "%s", "");
        log_warn("w1", "%s", "");
        log_info("i1", "%s", "");
        log_debug("d1", "%s", "");
        const char *text = captured();
        for (int i = 0; i < 4; i++)
            cr_assert_eq(strstr(text, events[i]) != NULL, i <= level, "%s at %d", events[i], level);
        cr_assert(strstr(text, " node=- "));
        close(pipe_fds[0]);
    }
}

Test(log, quotes_are_cut_at_one_length)
{
    char text[500];
    for (size_t n = 390; n < 402; n++) {
        memset(text, 'x', n);
        text[n] = '\0';
        const char *q = log_quote(text);
        cr_assert_eq(strlen(q), n <= 396 ? n + 2 : 396 + 5, "%zu bytes are %zu", n, strlen(q));
        cr_assert_eq(strcmp(q + strlen(q) - 4, "...\"") == 0, n > 396);
    }
    memset(text, '\x02', 200); /* four bytes each */
    text[99] = '\0';
    cr_assert_eq(strlen(log_quote(text)), 4 * 99 + 2);
    text[99] = '\x02';
    text[100] = '\0';
    cr_assert_eq(strlen(log_quote(text)), 4 * 99 + 5);
    cr_assert_str_eq(log_quote("\x1f\x20\x7e\x7f \xc2\x9f\xc2\xa0"), "\"\\x1f ~\\x7f \\xc2\\x9f\xc2\xa0\"");
}

Test(log, what_was_left_out_is_told_once_a_second)
{
    static const struct {
        uint64_t at;
        bool told;
    } rows[] = { { 5000000, true }, { 5999999, false }, { 6000000, true }, { 6000001, false }, { 8000000, true } };
    log_init(LOG_LEVEL_INFO, "p0");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        static struct log_limit l;
        clock_set_for_test(rows[i].at);
        for (int k = 0; k < 100 && log_limit_take(&l, "flood"); k++) {}
        capture();
        log_left_out();
        log_info("end", "%s", "");
        cr_assert_eq(strstr(captured(), "of=flood") != NULL, rows[i].told, "at %llu", (unsigned long long)rows[i].at);
        close(pipe_fds[0]);
    }
    clock_set_for_test(0);
}

Test(log, tokens_come_back_one_by_one)
{
    struct log_limit l = { 0 };
    const uint64_t start = 1000000, step = 1000000 / LOG_LIMIT_PER_S;
    clock_set_for_test(start);
    for (int i = 0; i < LOG_LIMIT_BURST; i++) cr_assert(log_limit_take(&l, "x"));
    clock_set_for_test(start + step - 1);
    cr_assert_not(log_limit_take(&l, "x"));
    clock_set_for_test(start + step);
    cr_assert(log_limit_take(&l, "x"), "a time too short for a token is not forgotten");
    clock_set_for_test(start - 1);
    cr_assert_not(log_limit_take(&l, "x"), "a clock that went back gives nothing");
    clock_set_for_test(start + 4 * step);
    for (int i = 0; i < 3; i++) cr_assert(log_limit_take(&l, "x"));
    cr_assert_not(log_limit_take(&l, "x"));
    clock_set_for_test(start + 4 * step + (LOG_LIMIT_BURST - 1) * step);
    for (int i = 0; i < LOG_LIMIT_BURST - 1; i++) cr_assert(log_limit_take(&l, "x"));
    cr_assert_not(log_limit_take(&l, "x"));
    clock_set_for_test(0);
}
