/* api: routes, headers of every answer, and the endpoints that need no request of the cluster. */
#include "tests/unit/coordinator/house.h"

static void expect_error(struct reply r, int status, const char *want)
{
    cr_assert_eq(r.status, status, "%d %s", r.status, r.body);
    cr_assert(strstr(r.body, want), "want %s in %s", want, r.body);
}

Test(api, a_path_and_a_method_find_their_endpoint)
{
    static const struct {
        const char *line, *allow; /* NULL: it is allowed */
    } rows[] = {
        { "GET /live", NULL },
        { "HEAD /live", NULL },
        { "GET /v1/models", NULL },
        { "GET /v1/models/tiny", NULL },
        { "GET /admin/nodes", NULL },
        { "GET /metrics", NULL },
        { "POST /live", "GET, HEAD, OPTIONS" },
        { "DELETE /v1/models/tiny", "GET, HEAD, OPTIONS" },
        { "GET /tokenize", "POST, OPTIONS" },
        { "HEAD /v1/completions", "POST, OPTIONS" },
        { "PUT /v1/chat/completions", "POST, OPTIONS" },
    };
    house_open("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct reply r = ask(rows[i].line, NULL);
        char allow[128];
        cr_assert_eq(r.status, rows[i].allow ? 405 : 200, "%s: %d", rows[i].line, r.status);
        cr_assert_eq(strncmp(rows[i].line, "HEAD", 4) == 0, r.body[0] == '\0', "%s", rows[i].line);
        if (!rows[i].allow) continue;
        snprintf(allow, sizeof(allow), "Allow: %s", rows[i].allow);
        cr_assert(has_line(&r, allow), "%s: %s", rows[i].line, r.head);
        snprintf(allow, sizeof(allow), "allowed: %s", rows[i].allow);
        cr_assert(r.body[0] == '\0' || strstr(r.body, allow), "%s", r.body);
    }
    static const char *const unknown[] = { "GET /v1/models/", "GET /liv", "GET /live/", "GET /",
                                           "POST /v1/embeddings" };
    for (size_t i = 0; i < 5; i++) {
        struct reply r = ask(unknown[i], NULL);
        expect_error(r, 404, "there is no endpoint");
        cr_assert_not(strstr(r.head, "Allow:"));
        if (i == 0) expect_error(r, 404, "there is no endpoint /v1/models/");
    }
    cr_assert_eq(metric_of("baton_requests_total{model=\"\",endpoint=\"none\",status=\"405\"}"), 5);
    cr_assert_eq(metric_of("baton_requests_total{model=\"\",endpoint=\"none\",status=\"404\"}"), 5);
    cr_assert_eq(metric_of("baton_requests_total{model=\"\",endpoint=\"live\",status=\"200\"}"), 2);
    cr_assert_eq(metric_of("baton_requests_total{model=\"\",endpoint=\"admin\",status=\"200\"}"), 1);
    house_close();
}

Test(api, a_browser_may_ask_before)
{
    house_open("");
    struct reply r =
        ask_with("OPTIONS /v1/models", "Origin: http://a\r\nAccess-Control-Request-Headers: X-A\r\n", NULL);
    cr_assert_eq(r.status, 204);
    cr_assert(has_line(&r, "Allow: GET, HEAD, OPTIONS") && has_line(&r, "Access-Control-Allow-Origin: http://a"), "%s",
              r.head);
    cr_assert(has_line(&r, "Access-Control-Allow-Headers: X-A") && has_line(&r, "Vary: Origin"));
    cr_assert(has_line(&r, "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS"));
    cr_assert(has_line(&r, "Access-Control-Max-Age: 86400"));
    r = ask("OPTIONS *", NULL);
    cr_assert(r.status == 204 && has_line(&r, "Allow: GET, HEAD, POST, OPTIONS"), "%s", r.head);
    cr_assert(has_line(&r, "Access-Control-Allow-Headers: Authorization, Content-Type, X-Request-Id"));
    cr_assert_not(strstr(r.head, "Access-Control-Allow-Origin"));
    r = ask("OPTIONS /nowhere", NULL);
    cr_assert(r.status == 204 && has_line(&r, "Allow: OPTIONS"), "%s", r.head);
    house_close();
}

Test(api, every_answer_has_the_id_of_its_request)
{
    char line[128], want[128], longest[API_REQUEST_ID_MAX + 2];
    house_open("");
    struct reply r = ask_with("GET /live", "X-Request-Id: a~b!\r\n", NULL);
    cr_assert(has_line(&r, "X-Request-Id: a~b!"), "%s", r.head);
    memset(longest, 'x', sizeof(longest));
    longest[API_REQUEST_ID_MAX] = '\0';
    snprintf(line, sizeof(line), "X-Request-Id: %s\r\n", longest);
    r = ask_with("GET /live", line, NULL);
    snprintf(want, sizeof(want), "X-Request-Id: %s", longest);
    cr_assert(has_line(&r, want), "%s", r.head);
    longest[API_REQUEST_ID_MAX] = 'x';
    longest[API_REQUEST_ID_MAX + 1] = '\0';
    for (int i = 0; i < 3; i++) { /* too long, with a space, with a letter that is none: one is made */
        snprintf(line, sizeof(line), "X-Request-Id: %s\r\n", i == 0 ? longest : i == 1 ? "a b" : "a\xC3\xA9");
        r = ask_with("GET /live", line, NULL);
        snprintf(want, sizeof(want), "X-Request-Id: req-%016llx-%x", (unsigned long long)h.co->sv.incarnation, i + 1);
        cr_assert(has_line(&r, want), "%s: %s", line, r.head);
    }
    house_close();
}

Test(api, what_a_body_is_must_be_said_right)
{
    house_open("");
    struct reply r = ask_with("POST /tokenize", "Content-Type: text/plain\r\n", "{\"content\":\"a\"}");
    expect_error(r, 415, "Content-Type must be application/json, not text/plain");
    r = ask_with("POST /tokenize", "Content-Type: application/jsonl\r\n", "{\"content\":\"a\"}");
    cr_assert_eq(r.status, 415);
    r = ask_with("POST /tokenize", "Content-Encoding: gzip\r\n", "{\"content\":\"a\"}");
    expect_error(r, 415, "Content-Encoding gzip is not taken");
    cr_assert(has_line(&r, "Accept-Encoding: identity"));
    static const char *const fine[] = { "", "Content-Type: application/json\r\n", "Content-Encoding: identity\r\n",
                                        "Content-Type: Application/JSON;charset=utf-8\r\n", "Content-Encoding: \r\n" };
    for (size_t i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
        cr_assert_eq(ask_with("POST /tokenize", fine[i], "{\"content\":\"a\"}").status, 200, "%s", fine[i]);
    cr_assert_eq(ask_with("GET /live", "Content-Type: text/plain\r\n", NULL).status, 200, "it has no body");
    house_close();
}

Test(api, a_model_is_described)
{
    char want[512];
    house_open("");
    const struct served_model *m = h.co->sv.models[0];
    cr_assert(m->n_params == 4 * BYTES_COUNT && m->d_model == 4 && m->context_length == BYTES_CONTEXT);
    for (int ready = 0; ready < 2; ready++) {
        if (ready) house_join(&h.d0, "d0", 2, true);
        snprintf(want, sizeof(want),
                 "{\"id\":\"tiny\",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"baton\",\"max_model_len\":64,"
                 "\"meta\":{\"n_vocab\":259,\"n_ctx_train\":64,\"n_embd\":4,\"n_params\":1036,\"size\":%llu,"
                 "\"fingerprint\":\"%016llx\",\"ready\":%s}}",
                 (long long)m->created, (unsigned long long)m->file_bytes, (unsigned long long)m->fingerprint,
                 ready ? "true" : "false");
        expect_reply("GET /v1/models/tiny", NULL, 200, want);
        struct reply r = ask("GET /v1/models", NULL);
        char all[600];
        snprintf(all, sizeof(all), "{\"object\":\"list\",\"data\":[%s]}", want);
        cr_assert_str_eq(r.body, all);
    }
    expect_error(ask("GET /v1/models/other", NULL), 404, "model \\\"other\\\" is not served here; see /v1/models");
    cr_assert(m->file_bytes > 4000 && llabs((long long)(m->created - time(NULL))) < 60);
    house_close();
}

Test(api, any_name_means_the_first_model_where_that_is_allowed)
{
    house_open("  any_model: true\n");
    cr_assert_eq(ask("GET /v1/models/other", NULL).status, 200);
    expect_reply("POST /tokenize", "{\"content\":\"\",\"model\":\"x\"}", 200,
                 "{\"tokens\":[],\"count\":0,\"max_model_len\":64}");
    house_close();
}

Test(api, says_whether_it_can_serve)
{
    house_open("");
    expect_reply("GET /live", NULL, 200, "{\"status\":\"ok\"}");
    expect_error(ask("GET /health", NULL), 503, "Loading model: no decode node has joined yet");
    expect_error(ask("GET /ready", NULL), 503, "\"code\":\"no_decode_node\"");
    house_join(&h.p0, "p0", 1, false);
    cr_assert_eq(ask("GET /health", NULL).status, 503, "a prefill node alone writes no answers");
    house_join(&h.d0, "d0", 2, true);
    expect_reply("GET /health", NULL, 200, "{\"status\":\"ok\"}");
    expect_reply("GET /ready", NULL, 200, "{\"status\":\"ready\"}");
    coordinator_drain(h.co);
    uv_timer_stop(&h.co->tick); /* drained at once: nothing is under way */
    expect_error(ask("GET /ready", NULL), 503, "\"code\":\"draining\"");
    expect_error(ask("POST /v1/completions", "{}"), 503, "the coordinator is shutting down");
    cr_assert_eq(metric_of("baton_requests_rejected_total{reason=\"draining\"}"), 1, "a probe is not rejected");
    house_close();
}

Test(api, text_becomes_tokens)
{
    static const struct {
        const char *body, *want;
    } rows[] = {
        { "{\"content\":\"ab\"}", "97,98],\"count\":2" },
        { "{\"content\":\"\"}", "],\"count\":0" },
        { "{\"prompt\":\"ab\"}", "257,97,98],\"count\":3" },
        { "{\"prompt\":\"ab\",\"add_special_tokens\":false}", "97,98],\"count\":2" },
        { "{\"content\":\"ab\",\"add_special\":true}", "257,97,98],\"count\":3" },
        { "{\"content\":\"ab\",\"add_special\":null,\"add_special_tokens\":true}", "257,97,98],\"count\":3" },
        { "{\"content\":\"a<|end|>\"}", "97,256],\"count\":2" },
        { "{\"content\":null,\"prompt\":\"<s>\",\"parse_special\":false}", "257,60,115,62],\"count\":4" },
    };
    house_open("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char want[128];
        snprintf(want, sizeof(want), "{\"tokens\":[%s,\"max_model_len\":64}", rows[i].want);
        expect_reply("POST /tokenize", rows[i].body, 200, want);
    }
    expect_reply("POST /detokenize", "{\"tokens\":[97,10,256]}", 200,
                 "{\"content\":\"a\\n<|end|>\",\"prompt\":\"a\\n<|end|>\"}");
    expect_reply("POST /detokenize", "{\"tokens\":[195]}", 200,
                 "{\"content\":\"\xEF\xBF\xBD\",\"prompt\":\"\xEF\xBF\xBD\"}");
    expect_reply("POST /detokenize", "{\"tokens\":[]}", 200, "{\"content\":\"\",\"prompt\":\"\"}");
    cr_assert_eq(metric_of("baton_requests_total{model=\"tiny\",endpoint=\"detokenize\",status=\"200\"}"), 3);
    cr_assert_eq(h.co->sv.n_asks, 0);
    cr_assert_null(h.co->sv.asks);
    house_close();
}

Test(api, what_is_no_text_is_refused_by_name)
{
    static const struct {
        const char *line, *body;
        int status;
        const char *want;
    } rows[] = {
        { "POST /tokenize", "{}", 400, "'content' (or 'prompt') must be a string, not absent" },
        { "POST /tokenize", "{\"prompt\":7}", 400,
          "must be a string, not an integer\",\"type\":\"invalid_request_error\","
          "\"param\":\"prompt\"" },
        { "POST /tokenize", "{\"content\":\"a\",\"parse_special\":1}", 400,
          "'parse_special' must be a boolean, not an integer" },
        { "POST /tokenize", "{\"content\":\"a\",\"model\":1}", 400, "'model' must be a string, not an integer" },
        { "POST /tokenize", "{\"content\":\"a\",\"model\":\"b\"}", 404, "model \\\"b\\\" is not served here" },
        { "POST /tokenize", "{\"content\":\"a\",\"bogus\":1}", 400, "bogus" },
        { "POST /tokenize", "[]", 400, "" },
        { "POST /detokenize", "{\"tokens\":[0,259]}", 400, "'tokens[1]' is 259; the vocabulary has 259 tokens" },
        { "POST /detokenize", "{\"tokens\":[-1]}", 400, "'tokens[0]' is -1" },
        { "POST /detokenize", "{\"tokens\":\"a\"}", 400, "tokens" },
        { "POST /detokenize", "{}", 400, "tokens" },
    };
    house_open("");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_error(ask(rows[i].line, rows[i].body), rows[i].status, rows[i].want);
    cr_assert_eq(ask("POST /tokenize", "{\"content\":\"a\",\"model\":null}").status, 200);
    cr_assert_eq(ask("POST /detokenize", "{\"tokens\":[258]}").status, 200);
    house_close();
}

Test(api, too_many_bodies_at_once_are_refused)
{
    house_open("  max_work: 1\n");
    int first = send_request("POST /tokenize", "{\"content\":\"a\"}"), second = send_request("POST /tokenize", "{}");
    struct reply r = read_reply(second);
    if (r.status == 429) { /* unless the first was through before the second was read */
        cr_assert(strstr(r.body, "too many requests are being read: 1, with 15 bytes") &&
                      has_line(&r, "Retry-After: 1"),
                  "%s", r.body);
        cr_assert(has_line(&r, "x-should-retry: true"));
    }
    cr_assert_eq(read_reply(first).status, 200);
    house_close();
}

Test(api, nodes_are_shown_with_their_load)
{
    message m = BATON__CONTROL__CONTROL_MESSAGE__INIT;
    Baton__Control__Heartbeat beat = BATON__CONTROL__HEARTBEAT__INIT;
    Baton__Control__Load load = BATON__CONTROL__LOAD__INIT;
    uint32_t states[] = { 40, 1, 2, 3 };
    house_open("");
    house_join(&h.d0, "d0", 0xAB, true);
    load.running = 1;
    load.waiting = 2;
    load.reserved = 3;
    load.transfers = 4;
    load.blocks_free = 48;
    load.blocks_total = 64;
    load.blocks_by_state = states;
    load.n_blocks_by_state = 4;
    load.prefill_tok_s = 100.5;
    load.decode_tok_s = 7;
    load.prefix_queries = 8;
    load.prefix_hits = 2;
    load.kv_bytes_received = 11;
    load.kv_bytes_sent = 12;
    load.rss_bytes = 13;
    beat.load = &load;
    m.body_case = IS(HEARTBEAT);
    m.heartbeat = &beat;
    fake_send(&h.d0, &m);
    const struct node *n = registry_find_name(dispatch_registry(h.co->sv.dispatch), "d0");
    HOUSE_UNTIL(n->load.running == 1);
    struct reply r = ask("GET /admin/nodes", NULL);
    static const char *const want[] = {
        "{\"ready\":true,\"draining\":false,\"uptime_s\":0,\"requests_running\":0,\"requests_waiting\":0,\"requests\":{"
        "\"queued\":0,",
        "},\"nodes\":[{\"name\":\"d0\",\"role\":\"decode\",\"state\":\"up\",\"model\":\"tiny\",",
        "\"local_prefill\":\"auto\",\"incarnation\":\"00000000000000ab\",\"heartbeat_age_ms\":",
        "\"max_seqs\":4,\"max_context\":64,\"assigned\":0,\"running\":1,\"waiting\":2,\"reserved\":3,\"transfers\":4,",
        "\"blocks_total\":64,\"blocks_free\":48,\"kv_blocks\":{\"total\":64,\"free\":40,",
        "\"prefill_tok_s\":100.5,\"decode_tok_s\":7,\"prefix_cache\":{\"queries\":8,\"hit_tokens\":2},"
        "\"kv_bytes_sent\":12,\"kv_bytes_received\":11,\"rss_bytes\":13}]}",
    };
    for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
        cr_assert(strstr(r.body, want[i]), "%s\n%s", want[i], r.body);
    cr_assert_not(strstr(r.body, "\"done\""), "what is over is not counted: %s", r.body);
    json_t *tree = json_loads(r.body, 0, NULL);
    cr_assert_not_null(tree, "%s", r.body);
    cr_assert_lt(
        json_integer_value(json_object_get(json_array_get(json_object_get(tree, "nodes"), 0), "heartbeat_age_ms")),
        5000);
    json_decref(tree);
    cr_assert_eq(metric_of("baton_node_up{role=\"decode\",node=\"d0\"}"), 1);
    cr_assert_eq(metric_of("baton_kv_cache_usage_ratio{node=\"d0\"}"), 0.25);
    cr_assert_eq(metric_of("baton_prefix_cache_hit_ratio{node=\"d0\"}"), 0.25);
    cr_assert_eq(metric_of("baton_kv_blocks{node=\"d0\",state=\"free\"}"), 40);
    double age = metric_of("baton_node_heartbeat_age_seconds{role=\"decode\",node=\"d0\"}");
    cr_assert(age >= 0 && age < 5);
    house_join(&h.p0, "p0", 1, false);
    r = ask("GET /admin/nodes", NULL);
    tree = json_loads(r.body, 0, NULL);
    cr_assert_eq(json_array_size(json_object_get(tree, "nodes")), 2, "%s", r.body);
    json_decref(tree);
    cr_assert_eq(metric_of("baton_prefix_cache_hit_ratio{node=\"p0\"}"), 0);
    house_close();
}

Test(api, what_the_http_server_refuses_is_counted_and_has_an_id)
{
    house_open("  max_body_bytes: 1024\n");
    static char body[1100];
    memset(body, ' ', sizeof(body) - 1);
    struct reply r = ask("POST /tokenize", body);
    cr_assert(r.status == 413 && has_line(&r, "x-should-retry: false") && strcasestr(r.head, "\nX-Request-Id: req-"),
              "%s", r.head);
    cr_assert_eq(metric_of("baton_requests_total{model=\"\",endpoint=\"none\",status=\"413\"}"), 1);
    house_close();
}

static void expect_no_start(const char *models, const char *options, const char *want)
{
    struct error err = { 0 };
    log_init(LOG_LEVEL_ERROR, "test");
    uv_loop_init(&h.loop);
    house_config(models, options);
    cr_assert_neq(coordinator_create(&h.co, &h.loop, &h.run.cfg, &err), OK);
    cr_assert(strstr(err.text, want), "want %s in %s", want, err.text);
    uv_run(&h.loop, UV_RUN_DEFAULT);
    cr_assert_eq(uv_loop_close(&h.loop), 0, "all is taken apart");
    config_fini(&h.run);
}

Test(api, what_cannot_be_opened_is_named)
{
    expect_no_start("{ name: tiny, path: /no/such.gguf }", "", "model tiny: /no/such.gguf");
    snprintf(h.model, sizeof(h.model), "/tmp/baton-api-%d.gguf", (int)getpid());
    bytes_model_write(h.model, "llama", NULL);
    char models[128];
    snprintf(models, sizeof(models), "{ name: tiny, path: %s }", h.model);
    expect_no_start(models, "  trusted_proxies: [ 10.0.0.0/40 ]\n", "coordinator.trusted_proxies: ");
    expect_no_start(models, "  admin: \"unix:/no/such/folder/x.sock\"\n", "coordinator.admin: ");
    expect_no_start(models, "  http: [ \"127.0.0.1:0\", \"unix:/no/such/folder/x.sock\" ]\n", "coordinator");
    bytes_model_write(h.model, "averylongnameofanarchitecturethatnobodyeverheardofandthatisnotthere12", NULL);
    expect_no_start(models, "", "general.architecture is longer than 64 bytes");
    unlink(h.model);
}

Test(api, drained_means_all_is_answered)
{
    house_open("");
    coordinator_drain(h.co);
    coordinator_drain(h.co); /* once is enough */
    HOUSE_UNTIL(h.co->stopped);
    house_close();
}
