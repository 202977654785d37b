/* whole: a coordinator and nodes of both roles, as processes, from a client's body to its answer. */
#include "tests/unit/cluster/nodes.h"

static const char prompt[] =
    "\"prompt\":[58,296,183,120,292,53,300,126,217,205,283,4,4,105,65,77,39,65,150,53,44,300,170,217,"
    "296,199,217,170,296,44,140,229,51,58,150,19,44,283,77,301,229,126,32,301,296,143,87,244,199,"
    "296,53,63,19,31,199,301,120,63,51,44,4,199,251,301,19,105,126,183,58,136,231,105,283]";
#define N_PROMPT 73

/* The member of an answer that `path` leads to: "choices.0.text". */
static const json_t *at(const json_t *v, const char *path)
{
    char part[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(part, sizeof(part), "%.*s", (int)n, path);
        v = json_is_array(v) ? json_array_get(v, strtoul(part, NULL, 10)) : json_object_get(v, part);
        path += n + (path[n] == '.');
    }
    cr_assert(v, "there is no %s", path);
    return v;
}

static json_t *complete(const char *more)
{
    char body[2048];
    snprintf(body, sizeof(body), "{%s,\"temperature\":0%s}", prompt, more);
    struct reply r = ask("POST /v1/completions", body);
    cr_assert_eq(r.status, 200, "%s", r.body);
    json_t *v = json_loads(r.body, 0, NULL);
    cr_assert(v, "%s", r.body);
    return v;
}

static double number_at(const json_t *v, const char *path)
{
    return json_number_value(at(v, path));
}

static const char *string_at(const json_t *v, const char *path)
{
    return json_string_value(at(v, path));
}

/* Member `key` of the node of this name, as /admin/nodes has it. */
static double node_number(const char *name, const char *key)
{
    struct reply r = ask("GET /admin/nodes", NULL);
    json_t *all = json_loads(r.body, 0, NULL), *row;
    size_t i;
    double found = -1;
    json_array_foreach(json_object_get(all, "nodes"), i, row) if (strcmp(string_at(row, "name"), name) == 0) found =
        number_at(row, key);
    json_decref(all);
    return found;
}

static void expect_hand_off(const struct node_process *p0, const struct node_process *d0, const json_t *a,
                            const json_t *b)
{
    double bytes = number_at(a, "timings.kv_bytes");
    cr_assert_str_eq(string_at(a, "timings.prefill_node"), "p0");
    cr_assert_str_eq(string_at(a, "timings.decode_node"), "d0");
    cr_assert_gt(bytes, 1000);
    cr_assert_gt(number_at(a, "timings.kv_bytes_16bit"), bytes);
    cr_assert(number_at(a, "timings.kv_transfer_ms") > 0 && number_at(a, "timings.prompt_ms") > 0);
    cr_assert_eq(number_at(a, "timings.cache_n"), 0);
    cr_assert_eq(number_at(b, "timings.cache_n"), N_PROMPT - 1, "the second time all but the last is there");
    cr_assert_lt(number_at(b, "timings.kv_bytes"), bytes);
    double both = bytes + number_at(b, "timings.kv_bytes");
    HOUSE_UNTIL(node_number("p0", "kv_bytes_sent") == both);
    HOUSE_UNTIL(node_number("d0", "kv_bytes_received") == both);
    cr_assert(node_number("p0", "kv_bytes_received") == 0 && node_number("d0", "kv_bytes_sent") == 0);
    HOUSE_UNTIL(node_number("d0", "running") == 0 && node_number("d0", "reserved") == 0);
    HOUSE_UNTIL(node_number("d0", "transfers") == 2 && node_number("p0", "transfers") == 2);
    cr_assert_eq(node_number("d0", "blocks_total"), node_number("d0", "blocks_free"));
    cr_assert_eq(node_number("d0", "kv_blocks.total"),
                 node_number("d0", "kv_blocks.free") + node_number("d0", "kv_blocks.cached"));
    cr_assert(node_number("d0", "max_seqs") == 3 && node_number("d0", "max_context") == 200);
    cr_assert(node_number("d0", "rss_bytes") > 1e6 && node_number("d0", "rss_bytes") < 4e9);
    cr_assert_eq(node_metric(p0, "baton_prompt_tokens_total{node=\"p0\"}"), N_PROMPT + 1);
    cr_assert_eq(node_metric(p0, "baton_generation_tokens_total{node=\"p0\"}"), 0);
    cr_assert_eq(node_metric(d0, "baton_prompt_tokens_total{node=\"d0\"}"), 0);
    cr_assert_eq(node_metric(d0, "baton_generation_tokens_total{node=\"d0\"}"), 22);
    cr_assert_eq(node_metric(p0, "baton_prefix_cache_hit_tokens_total{node=\"p0\"}"), N_PROMPT - 1);
    cr_assert_gt(node_metric(p0, "baton_prefix_cache_queries_total{node=\"p0\"}"), N_PROMPT);
    cr_assert_eq(node_metric(p0, "baton_prefix_cache_hit_ratio{node=\"p0\"}"),
                 (N_PROMPT - 1) / node_metric(p0, "baton_prefix_cache_queries_total{node=\"p0\"}"));
    cr_assert_eq(node_metric(d0, "baton_node_requests_running{node=\"d0\"}"), 0);
    cr_assert_eq(node_metric(d0, "baton_preemptions_total{node=\"d0\",kind=\"swap\"}"), 0);
    cr_assert_eq(node_metric(d0, "baton_kv_tier_blocks{node=\"d0\",level=\"ram\"}"), 0);
    cr_assert_eq(node_metric(d0, "baton_kv_blocks{node=\"d0\",state=\"free\"}"), node_number("d0", "kv_blocks.free"));
    cr_assert_eq(node_metric(d0, "baton_node_ready{node=\"d0\"}"), 1);
    cr_assert_eq(node_metric(d0, "baton_state_slots{node=\"d0\",use=\"live\"}"), -1, "it has no states");
    double steps = node_metric(d0, "baton_engine_steps_total{node=\"d0\"}");
    cr_assert(steps >= 22 && steps == node_metric(d0, "baton_engine_steps_total{node=\"d0\"}"), "%g", steps);
}

Test(whole, a_hand_off_and_a_node_alone_give_the_same_answer)
{
    struct node_process p0, d0, d1;
    cluster_number = 1;
    node_start(&d1, &decode_role, "d1",
               "--model " CLUSTER_MODEL " --threads 2 --tp 2 --kv-memory 2MiB --max-context 200");
    cluster_number = 0;
    node_start(&p0, &prefill_role, "p0",
               "--model " CLUSTER_MODEL
               " --threads 1 --kv-memory 2MiB --max-seqs 3 --max-context 200 --chunk-tokens 64");
    node_start(&d0, &decode_role, "d0",
               "--model " CLUSTER_MODEL
               " --threads 1 --kv-memory 2MiB --max-seqs 3 --max-context 200 --local-prefill never");
    cluster_open(CLUSTER_MODEL, "");
    node_wait_ready(&p0);
    node_wait_ready(&d0);
    cr_assert(strncmp(p0.line, "ready p0 admin=127.0.0.1:", 25) == 0 && strstr(p0.line, " kv=-\n"), "%s", p0.line);
    cr_assert(strncmp(d0.line, "ready d0 admin=127.0.0.1:", 25) == 0 && strstr(d0.line, " kv=tcp://127.0.0.1:"), "%s",
              d0.line);
    json_t *a = complete(",\"max_tokens\":12"), *b = complete(",\"max_tokens\":12,\"logprobs\":3");
    cr_assert_str_eq(string_at(a, "choices.0.text"), string_at(b, "choices.0.text"));
    cr_assert_eq(json_array_size(at(b, "choices.0.logprobs.tokens")), 12);
    cr_assert_geq(json_object_size(at(b, "choices.0.logprobs.top_logprobs.11")), 1);
    expect_hand_off(&p0, &d0, a, b);
    /* prompt logprobs come by many messages: all of them, once, in order */
    json_t *echo = complete(",\"max_tokens\":2,\"echo\":true,\"logprobs\":1");
    cr_assert_eq(json_array_size(at(echo, "choices.0.logprobs.token_logprobs")), N_PROMPT + 2);
    cr_assert_eq(node_end(&p0, SIGTERM), 0);
    cr_assert_eq(node_end(&d0, SIGTERM), 0);
    house_close();
    h = (struct house){ 0 };

    cluster_number = 1;
    cluster_open(CLUSTER_MODEL, "");
    node_wait_ready(&d1);
    json_t *c = complete(",\"max_tokens\":12,\"logprobs\":3"),
           *mine = complete(",\"max_tokens\":2,\"echo\":true,\"logprobs\":1");
    cr_assert_str_eq(string_at(c, "choices.0.text"), string_at(a, "choices.0.text"));
    cr_assert(json_equal(at(c, "choices.0.logprobs"), at(b, "choices.0.logprobs")), "the same bits on two ranks");
    cr_assert(json_equal(at(mine, "choices.0.logprobs"), at(echo, "choices.0.logprobs")));
    cr_assert_str_eq(string_at(c, "timings.prefill_node"), "d1");
    cr_assert(number_at(c, "timings.kv_bytes") == 0 && number_at(c, "timings.prompt_ms") > 0);
    cr_assert_eq(node_end(&d1, SIGINT), 0);
    json_decref(a), json_decref(b), json_decref(c), json_decref(echo), json_decref(mine);
    house_close();
}

/* A decode node of a model with long answers, and one of those under way. */
static int start_long_answer(struct node_process *d0, const char *flags)
{
    char words[512], *model = cluster_long_model();
    snprintf(words, sizeof(words), "--model %s --threads 1 --kv-memory 64MiB %s", model, flags);
    node_start(d0, &decode_role, "d0", words);
    cluster_open(model, "");
    node_wait_ready(d0);
    tiny_remove(model);
    int fd = send_request("POST /v1/completions",
                          "{\"prompt\":[1,2,3],\"max_tokens\":90000,\"ignore_eos\":true,\"stream\":true}");
    HOUSE_UNTIL(node_number("d0", "running") == 1);
    return fd;
}

Test(whole, a_node_says_how_it_is)
{
    static const struct {
        const char *line;
        int status;
        const char *want;
    } rows[] = {
        { "GET /live", 200, "live\n" },
        { "GET /ready", 200, "ready\n" },
        { "GET /other", 404, "known paths: /metrics /live /ready\n" },
        { "POST /ready", 405, "only GET\n" },
    };
    struct node_process d0;
    int fd = start_long_answer(&d0, "--admin 127.0.0.1:18800-18899");
    cr_assert(d0.port >= 18800 && d0.port <= 18899, "%d", d0.port);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct reply r = node_ask(&d0, rows[i].line);
        cr_assert_eq(r.status, rows[i].status, "%s: %d", rows[i].line, r.status);
        cr_assert_str_eq(r.body, rows[i].want);
    }
    cr_assert_eq(node_metric(&d0, "baton_build_info{version=\"" BATON_VERSION "\"}"), 1);
    cr_assert_eq(node_metric(&d0, "baton_node_requests_running{node=\"d0\"}"), 1);
    cr_assert_gt(node_metric(&d0, "baton_node_decode_tokens_per_second{node=\"d0\"}"), 0);
    kill(d0.pid, SIGTERM);
    const struct node *n = registry_find_name(dispatch_registry(h.co->sv.dispatch), "d0");
    HOUSE_UNTIL(n->draining);
    struct reply r = node_ask(&d0, "GET /ready");
    cr_assert(r.status == 503 && strcmp(r.body, "draining\n") == 0, "%d %s", r.status, r.body);
    cr_assert_eq(node_metric(&d0, "baton_node_ready{node=\"d0\"}"), 0);
    close(fd); /* its last job ends, and so does the node, soon after */
    uint64_t from = clock_now_us();
    cr_assert_eq(node_end(&d0, 0), 0);
    cr_assert(clock_now_us() - from < 5000000u && clock_now_us() - from > 100000u);
    house_close();
}

Test(whole, a_node_whose_time_to_drain_is_over_leaves)
{
    struct node_process d0;
    int fd = start_long_answer(&d0, "--shutdown-timeout 300ms");
    uint64_t from = clock_now_us();
    cr_assert_eq(node_end(&d0, SIGTERM), 0);
    cr_assert(clock_now_us() - from > 300000u && clock_now_us() - from < 6000000u);
    close(fd);
    house_close();
}

Test(whole, a_second_signal_ends_a_drain)
{
    struct node_process d0;
    int fd = start_long_answer(&d0, "");
    kill(d0.pid, SIGTERM);
    const struct node *n = registry_find_name(dispatch_registry(h.co->sv.dispatch), "d0");
    HOUSE_UNTIL(n->draining);
    cr_assert_eq(node_end(&d0, SIGTERM), 0);
    cr_assert_not(n->alive, "it has said goodbye");
    close(fd);
    house_close();
}

Test(whole, an_answer_that_nobody_wants_any_more_is_given_up)
{
    struct node_process d0;
    int fd = start_long_answer(&d0, "");
    cr_assert_eq(node_number("d0", "assigned"), 1);
    close(fd);
    HOUSE_UNTIL(node_number("d0", "running") == 0);
    HOUSE_UNTIL(node_number("d0", "assigned") == 0);
    cr_assert_eq(node_number("d0", "blocks_free"), node_number("d0", "blocks_total"));
    cr_assert_eq(node_end(&d0, SIGINT), 0);
    house_close();
}

Test(whole, a_node_that_cannot_start_says_why)
{
    static const struct {
        const char *flags, *want;
    } rows[] = {
        { "--model /no/such.gguf", "/no/such.gguf" },
        { "--model " CLUSTER_MODEL " --threads 1 --kv-memory 1MiB --max-context 100000", "context" },
        { "--model " CLUSTER_MODEL " --threads 1 --tp 64", "tp" },
        { "--model " CLUSTER_MODEL " --threads 1 --kv tcp://10.255.255.1:7 --insecure", "tcp://10.255.255.1:7" },
        { "--model " CLUSTER_MODEL " --threads 1 --admin 10.255.255.1:80 --insecure", "admin: " },
    };
    struct node_process n;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        node_start(&n, &decode_role, "d0", rows[i].flags);
        node_wait_ready(&n);
        cr_assert(strncmp(n.line, "failed ", 7) == 0 && strstr(n.line, rows[i].want), "%s: %s", rows[i].flags, n.line);
        cr_assert_eq(node_end(&n, 0), 1, "%s: %d", rows[i].flags, n.code);
    }
    node_start(&n, &decode_role, "d0", "--model " CLUSTER_MODEL " --bogus 1");
    cr_assert_eq(node_end(&n, 0), 2);
    node_start(&n, &decode_role, "d0", "--model " CLUSTER_MODEL " --check-config");
    cr_assert_eq(node_end(&n, 0), 0);
}
