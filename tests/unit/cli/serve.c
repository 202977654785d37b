/* serve: a whole cluster from one command, asked by the others, and its end. */
#include "helpers/tiny_model.h"
#include "tests/unit/cli/run_baton.h"
#include "tests/unit/coordinator/bytes_model.h"

#include <jansson.h>
#include <stdlib.h>

static const char chat_template[] = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[a]";
static char url[64];

static void vocab_and_template(struct gguf_build *b)
{
    bytes_vocab(b);
    gguf_build_str(b, "tokenizer.chat_template", chat_template);
}

static char *write_served(void)
{
    struct tiny_options o = tiny_defaults();
    o.n_vocab = BYTES_COUNT;
    o.more = vocab_and_template;
    return tiny_write(&o);
}

/* Starts `line` with a model for @, until it is ready; `url` is where. */
static struct run start_cluster(const char *line, const char *file)
{
    struct run r = run_start(line, file, NULL);
    run_until(&r, "\n\n");
    cr_assert_eq(sscanf(strbuf_cstr(&r.out), "ready %63s", url), 1, "%s", r.out.s);
    return r;
}

static struct run baton(const char *command, const char *input)
{
    char line[512];
    snprintf(line, sizeof(line), "%s --url %s", command, url);
    struct run r = run_start(line, NULL, input);
    run_wait(&r, NULL);
    return r;
}

static void expect_status(void)
{
    char name[2][16], role[2][16], model[2][32], state[2][16];
    long running[2], waiting[2], used[2], total[2], speed;
    int n = 0;
    struct run r = baton("status", NULL);
    cr_assert_eq(r.code, 0, "%s", strbuf_cstr(&r.err));
    cr_assert_eq(
        strncmp(r.out.s, "NODE  ROLE     MODEL  STATE   RUNNING  WAITING KV BLOCKS USED  PREFILL/S   DECODE/S\n", 83),
        0, "%s", r.out.s);
    const char *at = strchr(r.out.s, '\n') + 1;
    for (int i = 0; i < 2; i++, at += n + 1)
        cr_assert_eq(sscanf(at, "%15s %15s %31s %15s %ld %ld %ld/%ld %ld %ld%n", name[i], role[i], model[i], state[i],
                            &running[i], &waiting[i], &used[i], &total[i], &speed, &speed, &n),
                     10, "%s", r.out.s);
    cr_assert(strcmp(model[0], "tiny") == 0 && strcmp(state[0], "up") == 0 && strcmp(state[1], "up") == 0);
    cr_assert(strcmp(role[0], role[1]) != 0 && running[0] == 0 && used[0] == 0 && total[0] > 0 && total[1] > 0);
    cr_assert_str_eq(at, "\nrequests: 0 running, 0 waiting\n");
    run_fini(&r);
    r = baton("status --json", NULL);
    json_t *root = json_loads(r.out.s, 0, NULL);
    cr_assert_eq(json_array_size(json_object_get(root, "nodes")), 2, "%s", r.out.s);
    json_decref(root);
    run_fini(&r);
}

static void expect_chat(void)
{
    struct run r = baton("chat -p hi --temperature 0 --max-tokens 5 --stats", NULL);
    cr_assert_eq(r.code, 0, "%s", strbuf_cstr(&r.err));
    static const char *const parts[] = { "\n\n  time to first token ",
                                         "\n  speed  ",
                                         "\n  prompt tokens              12\n",
                                         "\n  answer tokens               5\n",
                                         "\n  KV shipped ",
                                         " KB   (16-bit: ",
                                         "\n  KV hand-off " };
    for (size_t i = 0; i < 7; i++) cr_assert(strstr(r.out.s, parts[i]), "%s in %s", parts[i], r.out.s);
    char *answer = strndup(r.out.s, (size_t)(strstr(r.out.s, parts[0]) - r.out.s));
    run_fini(&r);
    /* a dialogue: the first answer is the same, the second one knows the first, and /reset forgets */
    r = baton("chat -t 0 -n 5 --stats", "hi\nhi\n/reset\nhi\n");
    cr_assert_eq(r.code, 0, "%s", strbuf_cstr(&r.err));
    cr_assert_eq(strncmp(r.out.s, answer, strlen(answer)), 0);
    long prompts[3], n = 0;
    for (const char *at = r.out.s; n < 3 && (at = strstr(at, "prompt tokens")); at++)
        prompts[n++] = strtol(at + strlen("prompt tokens"), NULL, 10);
    cr_assert(n == 3 && prompts[0] == 12 && prompts[1] > 25 && prompts[2] == 12, "%s", r.out.s);
    run_fini(&r);
    r = baton("chat -p hi -s system -n 1 --stats", NULL);
    cr_assert(strstr(r.out.s, "\n  prompt tokens              26\n"), "%s", strbuf_cstr(&r.out));
    cr_assert_null(strstr(r.out.s, "speed"), "one token has no speed");
    run_fini(&r);
    r = baton("chat -n 5", "ok\n\nnot asked\n");
    cr_assert_eq(r.code, 0);
    run_fini(&r);
    static char much[3000];
    memset(much, 'x', sizeof(much) - 1);
    r = baton("chat", much);
    cr_assert(r.code == 1 && strstr(strbuf_cstr(&r.err), "answers HTTP 400: the prompt has "), "%s",
              strbuf_cstr(&r.err));
    run_fini(&r);
    r = baton("chat", "\xFF\nmore\n");
    cr_assert(r.code == 1 && strstr(strbuf_cstr(&r.err), "error: the text is not valid UTF-8"));
    run_fini(&r);
    free(answer);
}

Test(serve, a_cluster_of_one_command_answers_and_ends)
{
    char want[256];
    char *model = write_served();
    struct run r =
        start_cluster("serve -m @ --model-name tiny --port 0 -t 2 --kv-memory 2MiB --log-level error", model);
    snprintf(want, sizeof(want), "\n\n  curl %s/v1/chat/completions -H 'Content-Type: application/json' \\\n    -d '",
             url);
    cr_assert(strstr(r.out.s, want), "%s", r.out.s);
    expect_status();
    expect_chat();
    kill(r.pid, SIGINT);
    run_wait(&r, NULL);
    cr_assert_eq(r.code, 0, "%s", strbuf_cstr(&r.err));
    cr_assert_eq(r.err.n, 0, "%s", strbuf_cstr(&r.err));
    run_fini(&r);
    tiny_remove(model);
}

static void write_yaml(char path[64], const char *model, const char *rest)
{
    snprintf(path, 64, "/tmp/baton-serve-%d.yaml", (int)getpid());
    FILE *f = fopen(path, "w");
    fprintf(f, "models: [ { name: tiny, path: %s } ]\nlog: { level: error }\n%s", model, rest);
    fclose(f);
}

/* Its child whose command has this word. */
static pid_t child_of(pid_t parent, const char *word)
{
    char path[64], command[256];
    int pid, found = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
    FILE *f = fopen(path, "r"), *c;
    while (fscanf(f, "%d", &pid) == 1) {
        snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
        command[0] = '\0';
        if ((c = fopen(path, "r"))) {
            cr_assert_not_null(fgets(command, sizeof(command), c));
            fclose(c);
        }
        if (strstr(command, word)) found = pid;
    }
    fclose(f);
    cr_assert_gt(found, 0, "%s", word);
    return found;
}

Test(serve, nodes_may_end_and_the_coordinator_may_not)
{
    char yaml[64];
    char *model = write_served();
    write_yaml(yaml, model,
               "coordinator: { http: \"127.0.0.1:0\", control: \"tcp://127.0.0.1:0\" }\n"
               "prefill: [ { name: pa, threads: 1, kv_memory: 2MiB, weights: stream } ]\n"
               "decode: [ { name: da, threads: 1, kv_memory: 2MiB }, { name: db, kv_memory: 2MiB, threads: 2, "
               "parallel: { tp: 2 } } ]\n");
    struct run r = start_cluster("up --config @", yaml);
    kill(child_of(r.pid, "baton-prefill"), SIGKILL);
    time_t end = time(NULL) + RUN_WAIT_S;
    while (!strstr(strbuf_cstr(&r.err), "event=child_ended")) {
        cr_assert(time(NULL) < end, "%s", strbuf_cstr(&r.err));
        run_turn(&r, NULL);
    }
    cr_assert(strstr(r.err.s, "child=pa reason=\"pa was ended by signal 9 (Killed)\""), "%s", r.err.s);
    struct run s = baton("chat -p hi -n 2", NULL);
    cr_assert_eq(s.code, 0, "decode nodes read prompts themselves: %s", strbuf_cstr(&s.err));
    run_fini(&s);
    kill(child_of(r.pid, "baton-coordinator"), SIGKILL);
    run_wait(&r, NULL);
    cr_assert_eq(r.code, 1);
    cr_assert(strstr(r.err.s, "error: coordinator was ended by signal 9 (Killed)\n"), "%s", r.err.s);
    run_fini(&r);
    unlink(yaml);
    tiny_remove(model);
}

Test(serve, what_does_not_start_is_said_once)
{
    static const struct {
        const char *rest, *want;
    } rows[] = {
        { "coordinator: { http: \"10.255.255.1:80\", control: \"tcp://127.0.0.1:0\" }\nsecurity: { insecure: true }\n"
          "prefill: [ {} ]\ndecode: [ {} ]\n",
          "error: coordinator: coordinator.http: cannot listen on 10.255.255.1:80" },
        { "coordinator: { http: \"127.0.0.1:0\", control: \"tcp://127.0.0.1:0\" }\nsecurity: { insecure: true }\n"
          "prefill: [ { threads: 1 } ]\ndecode: [ { threads: 1, kv: \"tcp://10.255.255.1:7\" } ]\n",
          "error: d0: decode.kv of d0, lane 0: cannot bind tcp://10.255.255.1:7" },
        { "coordinator: { http: \"127.0.0.1:0\", control: \"tcp://127.0.0.1:0\" }\n"
          "prefill: [ { threads: 1, max_context: 100000 } ]\ndecode: [ { threads: 1 } ]\n",
          "error: p0: " },
    };
    char *model = write_served();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char yaml[64];
        write_yaml(yaml, model, rows[i].rest);
        struct run r = run_start("up --config @", yaml, NULL);
        run_wait(&r, NULL);
        cr_assert_eq(r.code, 1);
        cr_assert_eq(r.out.n, 0, "%s", strbuf_cstr(&r.out));
        const char *first = strstr(strbuf_cstr(&r.err), "error: ");
        cr_assert(first && strncmp(first, rows[i].want, strlen(rows[i].want)) == 0, "%s", strbuf_cstr(&r.err));
        cr_assert_null(strstr(first + 1, "error: "), "%s", r.err.s);
        run_fini(&r);
        unlink(yaml);
    }
    tiny_remove(model);
}

Test(serve, a_signal_before_it_is_ready_is_no_failure)
{
    char *model = write_served();
    struct run r = run_start("serve -m @ --port 0 -t 2 --kv-memory 2MiB --log-level error", model, NULL);
    for (int i = 0; i < 4; i++) run_turn(&r, NULL);
    kill(r.pid, SIGTERM);
    run_wait(&r, NULL);
    cr_assert(r.code == 0 || r.code == 128 + SIGTERM, "%d %s", r.code,
              strbuf_cstr(&r.err)); /* or before its handlers */
    cr_assert_null(strstr(strbuf_cstr(&r.err), "error: "), "%s", r.err.s);
    run_fini(&r);
    tiny_remove(model);
}
