/* cmd_chat.c - `baton chat`: a dialogue with a running cluster, streamed, with its history. */
#include "base/clock.h"
#include "base/mem.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/client.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct chat_options {
    char *url, *prompt, *system, *temperature_text;
    double temperature; /* below 0: not given */
    uint32_t max_tokens;
    bool stats;
};

#define AT(field) offsetof(struct chat_options, field)

static const struct config_option OPTIONS[] = {
    CLI_URL(AT(url)),
    COMMAND_TEXT("prompt", "p", AT(prompt), "TEXT", "", "one question; without it a dialogue"),
    COMMAND_TEXT("system", "s", AT(system), "TEXT", "", "what the model is told first"),
    COMMAND_TEXT("temperature", "t", AT(temperature_text), "T", "", "0 to 100; 0: always the likeliest token"),
    COMMAND_NUMBER("max-tokens", "n", AT(max_tokens), 1, 1000000000, "", "longest answer"),
    COMMAND_SWITCH("stats", NULL, AT(stats), "a table after each answer: time to first token, speed, hand-off"),
};
static const struct command COMMAND = { "baton chat", NULL,
                                        "In a dialogue, an empty line or Ctrl-D ends it, /reset forgets the history.\n",
                                        OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

/* One answer while it streams. */
struct turn {
    struct strbuf line;   /* an SSE line that is not complete yet */
    struct strbuf answer; /* text so far */
    struct strbuf error;  /* message of an error event */
    uint64_t sent_us, first_us, last_us;
    json_t *usage, *timings; /* owned; NULL until they come */
    bool done;
};

/* -1: go on; else the exit code. */
static int parse(struct chat_options *o, int argc, char **argv)
{
    int code = command_parse(&COMMAND, o, argc, argv, NULL);
    const char *text = o->temperature_text;
    char *end;
    o->temperature = -1;
    if (code >= 0 || !text) return code;
    o->temperature = strtod(text, &end);
    if (*text && !*end && o->temperature >= 0 && o->temperature <= 100) return -1;
    fprintf(stderr, "%s: --temperature: \"%.80s\" is not allowed; allowed: 0..100\n", COMMAND.name, text);
    command_free(&COMMAND, o);
    return EXIT_USAGE;
}

static void take_event(struct turn *t, const char *data)
{
    if (strcmp(data, "[DONE]") == 0) {
        t->done = true;
        return;
    }
    json_t *ev = json_loads(data, 0, NULL);
    const char *message = json_string_value(json_object_get(json_object_get(ev, "error"), "message"));
    if (message) strbuf_puts(&t->error, message);
    json_t *choice = json_array_get(json_object_get(ev, "choices"), 0);
    json_t *content = json_object_get(json_object_get(choice, "delta"), "content");
    if (json_string_length(content)) {
        t->last_us = clock_now_us();
        if (!t->first_us) t->first_us = t->last_us;
        fwrite(json_string_value(content), 1, json_string_length(content), stdout);
        fflush(stdout);
        strbuf_add(&t->answer, json_string_value(content), json_string_length(content));
    }
    json_t *usage = json_object_get(ev, "usage"), *timings = json_object_get(ev, "timings");
    if (json_is_object(usage) && !t->usage) t->usage = json_incref(usage);
    if (json_is_object(timings) && !t->timings) t->timings = json_incref(timings);
    json_decref(ev);
}

static bool take_stream(void *ctx, const char *p, size_t n)
{
    struct turn *t = ctx;
    for (size_t i = 0; i < n; i++) {
        if (p[i] != '\n') {
            strbuf_putc(&t->line, p[i]);
            continue;
        }
        if (t->line.n > 6 && strncmp(t->line.s, "data: ", 6) == 0) take_event(t, t->line.s + 6);
        strbuf_reset(&t->line);
    }
    return !t->line.overflowed;
}

static double number_at(const json_t *o, const char *key)
{
    return json_number_value(json_object_get(o, key));
}

static void print_stats(const struct turn *t)
{
    double ttft = t->first_us ? (double)(t->first_us - t->sent_us) / 1e3 : 0;
    double out = number_at(t->usage, "completion_tokens");
    double span = (double)(t->last_us - t->first_us) / 1e6;
    double kv = number_at(t->timings, "kv_bytes"), kv16 = number_at(t->timings, "kv_bytes_16bit");
    printf("\n  time to first token   %9.1f ms\n", ttft);
    if (span > 0 && out > 1) printf("  speed                 %9.1f tok/s\n", (out - 1) / span);
    printf("  prompt tokens         %7.0f\n", number_at(t->usage, "prompt_tokens"));
    printf("  answer tokens         %7.0f\n", out);
    printf("  KV shipped            %9.1f KB", kv / 1e3);
    if (kv > 0 && kv16 > 0) printf("   (16-bit: %.1f KB)", kv16 / 1e3);
    printf("\n  KV hand-off           %9.1f ms\n", number_at(t->timings, "kv_transfer_ms"));
}

static char *request_body(const struct chat_options *o, json_t *messages)
{
    json_t *body =
        json_pack("{s:O, s:b, s:{s:b}}", "messages", messages, "stream", 1, "stream_options", "include_usage", 1);
    if (o->temperature >= 0) json_object_set_new(body, "temperature", json_real(o->temperature));
    if (o->max_tokens > 0) json_object_set_new(body, "max_tokens", json_integer(o->max_tokens));
    char *text = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return text;
}

/* Asks with the history, streams the answer, adds it to the history.  False after an error (printed). */
static bool run_turn(const struct chat_options *o, json_t *messages)
{
    struct turn t = { .sent_us = clock_now_us() };
    struct strbuf answer = STRBUF_INIT;
    struct error err = { 0 };
    long http = 0;
    char *body = request_body(o, messages);
    enum status st = client_request(o->url, "/v1/chat/completions", body, take_stream, &t, &answer, &http, &err);
    free(body);
    if (t.first_us) fputc('\n', stdout);
    fflush(stdout); /* before what stands on stderr */
    if (st == OK && http != 200)
        st = client_refusal(o->url, http, &answer, &err);
    else if (st == OK && (t.error.n || !t.done))
        st = error_set(&err, ERR_IO, "%s", t.error.n ? strbuf_cstr(&t.error) : "the stream ended early");
    const bool ok = st == OK;
    if (!ok) fprintf(stderr, "error: %s\n", err.text);
    if (ok && o->stats) print_stats(&t);
    if (ok)
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role", "assistant", "content", strbuf_cstr(&t.answer)));
    json_decref(t.usage);
    json_decref(t.timings);
    strbuf_fini(&t.line);
    strbuf_fini(&t.answer);
    strbuf_fini(&t.error);
    strbuf_fini(&answer);
    return ok;
}

static json_t *new_history(const struct chat_options *o)
{
    json_t *messages = json_array();
    if (o->system) json_array_append_new(messages, json_pack("{s:s, s:s}", "role", "system", "content", o->system));
    return messages;
}

/* Adds the user's text; false if it is not UTF-8. */
static bool add_user(json_t *messages, const char *text)
{
    json_t *content = json_string(text);
    if (!content) {
        fprintf(stderr, "error: the text is not valid UTF-8\n");
        return false;
    }
    json_array_append_new(messages, json_pack("{s:s, s:o}", "role", "user", "content", content));
    return true;
}

/* Questions that are piped in end with the first that fails, as those behind it build on its answer; a person may go
 * on.  The exit code is the last question's. */
static int dialogue(const struct chat_options *o)
{
    json_t *messages = new_history(o);
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    bool tty = isatty(STDIN_FILENO), ok = true;
    while (ok || tty) {
        if (tty) printf("> ");
        fflush(stdout);
        if ((n = getline(&line, &cap, stdin)) <= 0) break;
        if (line[n - 1] == '\n') line[n - 1] = '\0';
        if (!*line) break;
        if (strcmp(line, "/reset") == 0) {
            json_decref(messages);
            messages = new_history(o);
            continue;
        }
        const size_t n_before = json_array_size(messages);
        ok = add_user(messages, line) && run_turn(o, messages);
        if (!ok && json_array_size(messages) > n_before) json_array_remove(messages, n_before);
    }
    if (ferror(stdin)) {
        fprintf(stderr, "error: standard input: %s\n", strerror(errno));
        ok = false;
    }
    free(line);
    json_decref(messages);
    return ok ? 0 : 1;
}

static int ask_once(const struct chat_options *o)
{
    json_t *messages = new_history(o);
    int rc = add_user(messages, o->prompt) && run_turn(o, messages) ? 0 : 1;
    json_decref(messages);
    return rc;
}

int cmd_chat(int argc, char **argv)
{
    struct chat_options o = { 0 };
    int rc = parse(&o, argc, argv);
    if (rc >= 0) return rc;
    rc = o.prompt ? ask_once(&o) : dialogue(&o);
    command_free(&COMMAND, &o);
    return rc;
}
