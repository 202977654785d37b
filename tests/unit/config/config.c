/* config: precedence, messages with file and line, roles, sockets, help. */
#include "config/config.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_ARGS 24
static const char basic[] = "models: [ { name: m, path: m.gguf } ]\n"
                            "prefill:\n"
                            "  - { name: p0, model: m }\n"
                            "decode:\n"
                            "  - { name: d0, model: m }\n";

static char yaml_path[64];

/* Writes `text` to a file of its own and returns its path. */
static const char *file_of(const char *text)
{
    snprintf(yaml_path, sizeof(yaml_path), "/tmp/baton-config-XXXXXX");
    int fd = mkstemp(yaml_path);
    cr_assert(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
    return yaml_path;
}

/* Loads with the words of `line` as arguments; "@" stands for the file with `yaml`. */
static enum status load(struct config_run *run, enum config_role role, const char *yaml, const char *line,
                        struct error *err)
{
    static char words[2048];
    char *argv[MAX_ARGS] = { (char *)"baton-test" }, *save = NULL;
    int argc = 1;
    const char *path = yaml ? file_of(yaml) : "";
    snprintf(words, sizeof(words), "%s", line);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        cr_assert(argc < MAX_ARGS);
        argv[argc++] = strcmp(w, "@") == 0 ? (char *)path : w;
    }
    enum status st = config_load(run, role, argc, argv, err);
    if (yaml) unlink(path);
    return st;
}

static void expect_refused(enum config_role role, const char *yaml, const char *line, const char *what)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, role, yaml, line, &err) != OK, "%s: was accepted", what);
    cr_assert(strstr(err.text, what), "want \"%s\" in \"%s\"", what, err.text);
    cr_assert(!strchr(what, ':') || err.status != OK);
}

static void expect_file_refused(const char *yaml, const char *what)
{
    char want[512];
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_COORDINATOR, yaml, "--config @", &err) != OK, "%s: was accepted", what);
    snprintf(want, sizeof(want), "%s:%s", yaml_path, what);
    cr_assert_str_eq(err.text, want);
}

Test(config, defaults_of_a_small_file)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_COORDINATOR, basic, "--config @", &err) == OK, "%s", err.text);
    const struct config *c = &run.cfg;
    cr_assert_str_eq(c->coordinator.http.items[0], "127.0.0.1:8080");
    cr_assert_eq(c->coordinator.control.n, 1);
    cr_assert_str_eq(c->coordinator.control.items[0], "tcp://127.0.0.1:9090");
    cr_assert_eq(c->coordinator.max_queue, 4096);
    cr_assert_eq(c->coordinator.max_queue_bytes, 256ull << 20);
    cr_assert_eq(c->coordinator.max_body_bytes, 32u << 20);
    cr_assert_eq(c->coordinator.request_timeout_ms, 600000);
    cr_assert_eq(c->kv.lanes, 2);
    cr_assert_eq(c->kv.frame_bytes, 1u << 20);
    cr_assert_str_eq(c->kv.codec, "int8");
    cr_assert_eq(c->n_prefill, 1);
    cr_assert_eq(c->decode[0].kv_memory, 0, "auto");
    cr_assert_eq(c->decode[0].chunk_tokens, 256);
    cr_assert_str_eq(c->decode[0].local_prefill, "auto");
    cr_assert_null(run.self);
    cr_assert_eq(run.weights_fd, -1);
    config_fini(&run);
}

Test(config, flag_beats_variable_beats_file_beats_default)
{
    struct config_run run;
    struct error err = { 0 };
    const char *yaml = "models: [ { path: m.gguf } ]\ndecode:\n  - { max_seqs: 3, threads: 3, kv_memory: 3MiB }\n";
    setenv("BATON_DECODE_MAX_SEQS", "4", 1);
    setenv("BATON_DECODE_THREADS", "4", 1);
    setenv("BATON_KV_LANES", "", 1); /* empty: not set */
    cr_assert(load(&run, CONFIG_DECODE, yaml, "--config @ --threads=6 -t 6", &err) == OK, "%s", err.text);
    cr_assert_eq(run.self->max_seqs, 4);
    cr_assert_eq(run.self->threads, 6);
    cr_assert_eq(run.self->kv_memory, 3u << 20);
    cr_assert_eq(run.self->max_batch_tokens, 512);
    cr_assert_eq(run.cfg.kv.lanes, 2);
    cr_assert_str_eq(run.self->name, "d0");
    cr_assert_str_eq(run.cfg.models[0].name, "m");
    config_fini(&run);
}

static void expect_control(enum config_role role, const char *yaml, const char *line, const char *want)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, role, yaml, line, &err) == OK, "%s", err.text);
    char *got = config_list_join(&run.cfg.coordinator.control);
    cr_assert_str_eq(got, want, "%s", line);
    free(got);
    config_fini(&run);
}

Test(config, a_list_adds_up_and_is_taken_whole_from_one_source)
{
    static const char yaml[] = "models: [ { path: m.gguf } ]\ndecode: [ { name: d0 } ]\n"
                               "coordinator:\n  control: [ \"tcp://127.0.0.1:1\", \"tcp://127.0.0.1:2\" ]\n";
    expect_control(CONFIG_DECODE, yaml, "--config @", "tcp://127.0.0.1:1,tcp://127.0.0.1:2");
    setenv("BATON_COORDINATOR_CONTROL", "tcp://127.0.0.1:3,ipc:///tmp/c,tcp://127.0.0.1:4", 1);
    expect_control(CONFIG_DECODE, yaml, "--config @", "tcp://127.0.0.1:3,ipc:///tmp/c,tcp://127.0.0.1:4");
    expect_control(CONFIG_DECODE, yaml,
                   "--config @ --coordinator tcp://127.0.0.1:5 --coordinator tcp://127.0.0.1:6,tcp://127.0.0.1:5 "
                   "--control=tcp://127.0.0.1:7",
                   "tcp://127.0.0.1:5,tcp://127.0.0.1:6,tcp://127.0.0.1:7");
    /* A coordinator reads the same file and names its own. */
    expect_control(CONFIG_COORDINATOR, yaml, "--config @ --control tcp://127.0.0.1:2", "tcp://127.0.0.1:2");
    unsetenv("BATON_COORDINATOR_CONTROL");
    expect_refused(CONFIG_COORDINATOR, yaml, "--config @",
                   ":4: coordinator.control[0]: 2 control planes are named and a coordinator has one; say with "
                   "--control which is its own");
    expect_refused(CONFIG_UP, yaml, "@", "2 control planes are named");
}

Test(config, a_dump_reads_back_to_the_same)
{
    struct config_run run;
    struct error err = { 0 };
    struct strbuf first = STRBUF_INIT, second = STRBUF_INIT;
    cr_assert(load(&run, CONFIG_DECODE, NULL,
                   "--model m --name d1 --max-gap 70ms --coordinator tcp://127.0.0.1:5 --coordinator ipc:///tmp/c",
                   &err) == OK,
              "%s", err.text);
    config_dump(&run.cfg, &first);
    config_fini(&run);
    cr_assert(strstr(strbuf_cstr(&first), "control: [ \"tcp://127.0.0.1:5\", \"ipc:///tmp/c\" ]"), "%s", first.s);
    cr_assert(load(&run, CONFIG_DECODE, strbuf_cstr(&first), "--config @", &err) == OK, "%s", err.text);
    config_dump(&run.cfg, &second);
    config_fini(&run);
    cr_assert_str_eq(strbuf_cstr(&first), strbuf_cstr(&second));
    strbuf_fini(&first);
    strbuf_fini(&second);
}

Test(config, a_dump_is_yaml_with_every_key_that_is_set)
{
    struct config_run run;
    struct error err = { 0 };
    struct strbuf text = STRBUF_INIT;
    cr_assert_eq(load(&run, CONFIG_UP,
                      "models: [ { name: a, path: a.gguf }, { name: b, path: b.gguf } ]\n"
                      "prefill: [ { model: a, parallel: { tp: 2 } } ]\n"
                      "decode: [ { model: b, cpus: \"0\", max_gap: 1m }, { model: a } ]\n",
                      "--config @", &err),
                 OK, "%s", err.text);
    config_dump(&run.cfg, &text);
    static const char models[] =
        "models:\n  - { name: \"a\", path: \"a.gguf\" }\n  - { name: \"b\", path: \"b.gguf\" }\n"
        "coordinator: { http: [ \"127.0.0.1:8080\" ], control: [ \"tcp://127.0.0.1:9090\" ], "
        "max_queue: 4096, max_queue_bytes: 268435456, max_body_bytes: 33554432, ";
    static const char nodes[] =
        "log: { level: \"info\" }\n"
        "prefill:\n"
        "  - { name: \"p0\", model: \"a\", threads: 0, parallel: { tp: 2, pp: 1 }, backend: \"auto\", devices: \"0\", "
        "gpu_memory: auto, numerics: \"fast\", isa: \"auto\", weights: \"auto\", "
        "io: \"auto\", admin: \"127.0.0.1:0\", max_seqs: 32, kv_memory: auto, max_batch_tokens: 512, "
        "chunk_tokens: 256, max_context: 0 }\n"
        "decode:\n"
        "  - { name: \"d0\", model: \"b\", threads: 0, cpus: \"0\", parallel: { tp: 1, pp: 1 }, backend: \"auto\", "
        "devices: \"0\", "
        "gpu_memory: auto, numerics: \"fast\", isa: \"auto\", "
        "weights: \"auto\", io: \"auto\", kv: \"tcp://127.0.0.1:0\", admin: \"127.0.0.1:0\", max_seqs: 32, "
        "kv_memory: auto, max_batch_tokens: 512, chunk_tokens: 256, max_gap: 60000ms, max_context: 0, "
        "local_prefill: \"auto\" }\n"
        "  - { name: \"d1\", model: \"a\", threads: 0, parallel: { tp: 1, pp: 1 }, ";
    cr_assert_eq(strncmp(text.s, models, strlen(models)), 0, "%s", text.s);
    cr_assert(strstr(text.s, nodes), "%s", text.s);
    cr_assert(strstr(text.s, "security: { curve: \"off\", insecure: false }\n"), "%s", text.s);
    strbuf_fini(&text);
    config_fini(&run);
}

Test(config, a_file_holds_so_many_nodes_and_models)
{
    struct strbuf yaml = STRBUF_INIT;
    struct config_run run;
    struct error err = { 0 };
    static const char *const lists[] = { "models", "prefill", "decode" };
    static const uint32_t most[] = { CONFIG_MAX_MODELS, CONFIG_MAX_NODES, CONFIG_MAX_NODES };
    for (int k = 0; k < 3; k++) {
        char want[64];
        strbuf_reset(&yaml);
        if (k) strbuf_puts(&yaml, "models: [ { name: a, path: a.gguf } ]\n");
        strbuf_addf(&yaml, "%s:\n", lists[k]);
        for (uint32_t i = 0; i < most[k]; i++) {
            if (k)
                strbuf_addf(&yaml, "  - { name: n%u }\n", i);
            else
                strbuf_addf(&yaml, "  - { name: m%u, path: m%u.gguf }\n", i, i);
        }
        cr_assert_eq(load(&run, CONFIG_COORDINATOR, yaml.s, "--config @", &err), OK, "%s: %s", lists[k], err.text);
        cr_assert_eq(k == 0 ? run.cfg.n_models : k == 1 ? run.cfg.n_prefill : run.cfg.n_decode, most[k]);
        config_fini(&run);
        strbuf_addf(&yaml, "  - { name: more%s }\n", k ? "" : ", path: more.gguf");
        snprintf(want, sizeof(want), "%u: %s: more than %u entries", most[k] + (k ? 3 : 2), lists[k], most[k]);
        expect_file_refused(yaml.s, want);
    }
    strbuf_fini(&yaml);
}

Test(config, each_value_of_a_list_is_checked)
{
    expect_file_refused("coordinator: { control: [ \"tcp://127.0.0.1:1\", 7 ] }\n",
                        "1: coordinator.control[1]: \"7\" is not allowed; allowed: tcp://host:port or ipc://path");
    expect_file_refused("coordinator: { control: [] }\n",
                        "1: coordinator.control: a list of at least one value is expected here");
    expect_file_refused("coordinator: { control: [ [ a ] ] }\n",
                        "1: coordinator.control[0]: one value is expected here");
    expect_refused(CONFIG_DECODE, NULL, "--model m --coordinator tcp://127.0.0.1:1 --coordinator tcp://10.0.0.1:2",
                   "--control: tcp://10.0.0.1:2 is beyond loopback");
    expect_refused(CONFIG_DECODE, NULL, "--model m --coordinator tcp://127.0.0.1:1,",
                   "--control: \"\" is not allowed; allowed: tcp://host:port or ipc://path");
    char many[1024] = "--model m --coordinator tcp://127.0.0.1:100";
    for (int i = 1; i <= 16; i++) snprintf(many + strlen(many), 40, ",tcp://127.0.0.1:%d", i);
    expect_refused(CONFIG_DECODE, NULL, many, "--control: more than 16 values");
}

Test(config, one_value_given_twice_is_refused_unless_it_is_the_same)
{
    struct config_run run;
    struct error err = { 0 };
    expect_refused(CONFIG_DECODE, NULL, "--model m --threads 1 -t 2",
                   "--threads is given twice, as \"1\" and as \"2\"; give it once");
    expect_refused(CONFIG_DECODE, NULL, "--model a -m b", "--model is given twice, as \"a\" and as \"b\"");
    expect_refused(CONFIG_DECODE, NULL, "--model a --insecure --insecure=false", "--insecure is given twice");
    expect_refused(CONFIG_UP, basic, "@ other.yaml", "--config is given twice");
    cr_assert(load(&run, CONFIG_DECODE, NULL, "--model m --threads 2 -t 2 --max-gap 1s --max-gap 1000ms", &err) == OK,
              "%s", err.text);
    cr_assert(run.self->threads == 2 && run.self->max_gap_ms == 1000);
    config_fini(&run);
}

Test(config, unknown_keys_are_named_with_line_and_nearest_key)
{
    expect_file_refused("models: [ { path: m.gguf } ]\ndecode:\n  - name: d0\n    max_seq: 3\n",
                        "4: unknown key decode[0].max_seq; did you mean max_seqs?");
    expect_file_refused("decod: []\n", "1: unknown key decod; did you mean decode?");
    expect_file_refused("coordinator:\n  htpp: x\n", "2: unknown key coordinator.htpp; did you mean http?");
    expect_file_refused(
        "kv: { zzzzzz: 1 }\n",
        "1: unknown key kv.zzzzzz; allowed: codec, lanes, frame_bytes, credit_bytes, swap_bytes, snapshot_bytes, "
        "rotate, prefix_cache, cache_secret, tier_bytes, tier_path, tier_disk_bytes");
    expect_refused(CONFIG_COORDINATOR, "prefill:\n  - { local_prefill: never }\n", "--config @",
                   ":2: unknown key prefill[0].local_prefill");
}

/* A map within an entry: read, dumped, checked like its keys' neighbours. */
Test(config, a_node_says_how_many_ranks_it_has)
{
    static const char yaml[] = "models: [ { path: m.gguf } ]\n"
                               "prefill: [ { name: p0, parallel: { tp: 2 }, isa: ref }, { parallel: } ]\n"
                               "decode:\n  - name: d0\n    parallel:\n      pp: 3\n      tp: 4\n";
    struct config_run run, again;
    struct error err;
    struct strbuf text = STRBUF_INIT;
    cr_assert_eq(load(&run, CONFIG_UP, yaml, "@", &err), OK, "%s", err.text);
    config_dump(&run.cfg, &text);
    cr_assert(strstr(strbuf_cstr(&text), "parallel: { tp: 4, pp: 3 }, backend"), "%s", strbuf_cstr(&text));
    cr_assert_eq(load(&again, CONFIG_UP, strbuf_cstr(&text), "@", &err), OK, "%s", err.text);
    const struct config *cfgs[] = { &run.cfg, &again.cfg };
    for (int i = 0; i < 2; i++) {
        const struct config *c = cfgs[i];
        cr_assert(c->prefill[0].tp == 2 && c->prefill[0].pp == 1 && strcmp(c->prefill[0].isa, "ref") == 0);
        cr_assert(c->prefill[1].tp == 1 && c->prefill[1].pp == 1);
        cr_assert(c->decode[0].tp == 4 && c->decode[0].pp == 3);
    }
    strbuf_fini(&text);
    config_fini(&run);
    config_fini(&again);
    cr_assert_eq(load(&run, CONFIG_DECODE, NULL, "--model m --tp 3 --pp 2", &err), OK, "%s", err.text);
    cr_assert(run.self->tp == 3 && run.self->pp == 2);
    config_fini(&run);
    expect_file_refused("decode:\n  - parallel: { tpp: 3 }\n",
                        "2: unknown key decode[0].parallel.tpp; did you mean tp?");
    expect_file_refused("decode:\n  - paralel: { tp: 3 }\n",
                        "2: unknown key decode[0].paralel; did you mean parallel?");
    expect_file_refused("decode:\n  - parallel: 2\n", "2: decode[0].parallel: a map of keys is expected here");
    expect_file_refused("decode:\n  - tp: 2\n",
                        "2: unknown key decode[0].tp; allowed: name, model, threads, cpus, parallel, backend, devices, "
                        "gpu_memory, numerics, isa, weights, io, kv, kv_advertise, admin, max_seqs, kv_memory, "
                        "max_batch_tokens, chunk_tokens, max_gap, max_context, "
                        "local_prefill");
    expect_file_refused("decode:\n  - parallel: { tp: 0 }\n",
                        "2: decode[0].parallel.tp: \"0\" is not allowed; allowed: 1..64");
}

Test(config, bad_values_say_what_is_allowed)
{
    expect_file_refused("kv:\n  lanes: 17\n", "2: kv.lanes: \"17\" is not allowed; allowed: 1..16");
    expect_file_refused("decode:\n  - max_seqs: many\n",
                        "2: decode[0].max_seqs: \"many\" is not allowed; allowed: 1..4096");
    expect_file_refused(
        "decode:\n  - kv_memory: 1MB\n",
        "2: decode[0].kv_memory: \"1MB\" is not allowed; allowed: auto, or 1MiB..16TiB in bytes, KiB, MiB or "
        "GiB");
    expect_file_refused(
        "coordinator: { progress_timeout: 10 }\n",
        "1: coordinator.progress_timeout: \"10\" is not allowed; allowed: 100ms..1h with ms, s, m or h");
    expect_file_refused("kv: { codec: fp8 }\n", "1: kv.codec: \"fp8\" is not allowed; allowed: int8, f16");
    expect_file_refused("coordinator: { http: 8080 }\n",
                        "1: coordinator.http: \"8080\" is not allowed; allowed: host:port, [v6]:port or unix:path");
    expect_file_refused("coordinator: { any_model: maybe }\n",
                        "1: coordinator.any_model: \"maybe\" is not allowed; allowed: true or false");
    expect_file_refused("prefill:\n  - { chunk_tokens: 100 }\n",
                        "2: prefill[0].chunk_tokens: \"100\" is not allowed; allowed: 64..65536 in steps of 64");
    expect_file_refused("kv: [ 1 ]\n", "1: kv: a map of keys is expected here");
    expect_file_refused("decode: 3\n", "1: decode: a list of entries is expected here");
    expect_file_refused("decode: [ 3 ]\n", "1: decode[0]: an entry is a map, such as { name: ... }");
    expect_file_refused("kv: { lanes: [ 1 ] }\n", "1: kv.lanes: one value is expected here");
    expect_file_refused("- a\n", "1: a map of sections is expected here");
}

Test(config, flags_and_variables_are_checked_too)
{
    expect_refused(CONFIG_DECODE, NULL, "--model m.gguf --max-seq 3",
                   "unknown option --max-seq; did you mean --max-seqs?");
    expect_refused(CONFIG_DECODE, NULL, "--model m.gguf --max-seqs 0",
                   "--max-seqs: \"0\" is not allowed; allowed: 1..4096");
    expect_refused(CONFIG_DECODE, NULL, "--model m.gguf --max-seqs", "--max-seqs needs a value");
    expect_refused(CONFIG_DECODE, NULL, "stray", "unexpected argument \"stray\"");
    expect_refused(CONFIG_PREFILL, NULL, "--model m.gguf --kv tcp://127.0.0.1:1", "unknown option --kv");
    setenv("BATON_KV_LANES", "99", 1);
    expect_refused(CONFIG_DECODE, NULL, "--model m.gguf", "BATON_KV_LANES: \"99\" is not allowed");
}

Test(config, names_and_models_have_to_fit)
{
    expect_file_refused("models: [ { name: m, path: a }, { name: m, path: b } ]\n",
                        "1: models[1].name: the name m is taken by models[0]");
    expect_file_refused("models: [ { name: m, path: a } ]\nprefill: [ { name: x } ]\ndecode: [ { name: x } ]\n",
                        "3: decode[0].name: the name x is taken by prefill[0]");
    expect_file_refused("models: [ { name: smollm2, path: a } ]\ndecode:\n  - { model: smolm2 }\n",
                        "3: decode[0].model: there is no model smolm2; did you mean smollm2?");
    static const char *const bad[] = { "a//b", "/a", "a/", "a b", "a%2fb" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char file[64], want[160];
        snprintf(file, sizeof(file), "models: [ { name: %s, path: a } ]\n", bad[i]);
        snprintf(
            want, sizeof(want),
            "1: models[0].name: \"%s\" is not allowed; allowed: 1 to 63 of A-Z a-z 0-9 . _ - and single / between them",
            bad[i]);
        expect_file_refused(file, want);
    }
    expect_file_refused("models: [ { name: o/m, path: a } ]\ndecode: [ { name: a/b, model: o/m } ]\n",
                        "2: decode[0].name: \"a/b\" is not allowed; allowed: 1 to 63 of A-Z a-z 0-9 . _ -");
    expect_file_refused("models: [ { name: o/m, path: a } ]\ndecode: [ { name: d, model: m } ]\n",
                        "2: decode[0].model: there is no model m; the first is o/m");
    expect_refused(CONFIG_COORDINATOR, "models: [ {path: a}, {path: b} ]\ndecode: [ { name: d } ]\n", "--config @",
                   "decode[0] needs model: there is more than one");
    expect_refused(CONFIG_COORDINATOR, "kv: { lanes: 2 }\n", "--config @", "no model; give models:");
    expect_refused(CONFIG_COORDINATOR, "models: [ { name: a } ]\n", "--config @", "models[0].path is missing");
    expect_refused(CONFIG_UP, "models: [ { path: a } ]\n", "@", "at least one decode node");
    expect_refused(CONFIG_UP, NULL, "", "give its YAML file");
    expect_refused(CONFIG_COORDINATOR, NULL, "--config /nonexistent.yaml", "/nonexistent.yaml: No such file");
}

Test(config, nodes_that_start_together_own_disjoint_processors)
{
    const char *both = "models: [ { path: a } ]\nprefill: [ { cpus: 0-3 } ]\ndecode: [ { cpus: \"6,3\" } ]\n";
    struct config_run run;
    struct error err = { 0 };
    expect_refused(CONFIG_UP, both, "@", "3: decode[0].cpus: cpus 6,3: processor 3 belongs to prefill[0] already");
    /* Of a file for several hosts each node has one to itself. */
    cr_assert_eq(load(&run, CONFIG_DECODE, both, "--config @", &err), OK, "%s", err.text);
    config_fini(&run);
    const char *apart =
        "models: [ { path: a } ]\nprefill: [ { cpus: 0-3 } ]\ndecode: [ { cpus: 4-5 }, { threads: 1 } ]\n";
    cr_assert_eq(load(&run, CONFIG_UP, apart, "@", &err), OK, "%s", err.text);
    config_fini(&run);
    expect_file_refused("decode:\n  - { cpus: \"0-3,2\" }\n",
                        "2: decode[0].cpus: \"0-3,2\" is not allowed; allowed: a list of numbers such as 0-3,6");
}

Test(config, values_that_do_not_go_together_are_refused_before_a_start)
{
    expect_file_refused("models: [ { path: a } ]\ndecode:\n  - { weights: stream, io: mmap }\n",
                        "3: decode[0].io: weights are not streamed through a mapping; auto, uring or pread");
    expect_refused(CONFIG_DECODE, NULL, "--model m --max-seqs 512",
                   "512 tokens a step are too few for max_seqs 512; 576 let prompts go on beside them");
    expect_refused(CONFIG_DECODE, NULL, "--model m --kv-tier-path /tmp", "set both or none");
    expect_refused(CONFIG_DECODE, NULL, "--model m --kv-tier-bytes 64MiB --prefix-cache off",
                   "a tier keeps what the prefix cache knows, and kv.prefix_cache is off");
}

Test(config, sockets_beyond_loopback_need_a_word)
{
    const char *wide = "models: [ { path: a } ]\ncoordinator:\n  http: 0.0.0.0:8080\n";
    expect_file_refused(wide, "3: coordinator.http: 0.0.0.0:8080 is beyond loopback and nothing is encrypted yet; "
                              "keep sockets on loopback or set security.insecure: true");
    expect_refused(CONFIG_DECODE, NULL, "--model m --kv tcp://10.0.0.1:0", "--kv: tcp://10.0.0.1:0 is beyond loopback");
    expect_refused(CONFIG_DECODE, NULL, "--model m --admin 10.0.0.1:0", "--admin: 10.0.0.1:0 is beyond");
    expect_refused(CONFIG_DECODE, NULL, "--model m --kv tcp://*:7000 --insecure",
                   "--kv: tcp://*:7000: name the address that prefill nodes reach, or give it as kv_advertise");
    expect_refused(CONFIG_DECODE, NULL, "--model m --kv-advertise tcp://h:65535",
                   "--kv-advertise: tcp://h:65535: the last of 2 lanes would have port 65536");
    expect_refused(CONFIG_PREFILL, NULL, "--model m --coordinator tcp://host:9090",
                   "--control: tcp://host:9090 is beyond");
    expect_refused(CONFIG_COORDINATOR, NULL, "--model m --curve on",
                   "--curve: on comes later; keep sockets on loopback or set security.insecure: true");
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_COORDINATOR, wide, "--config @ --insecure", &err) == OK, "%s", err.text);
    config_fini(&run);
    cr_assert(
        load(&run, CONFIG_DECODE, NULL, "--model m --kv tcp://*:7000 --kv-advertise tcp://h:0 --insecure", &err) == OK,
        "%s", err.text);
    config_fini(&run);
}

Test(config, loopback_addresses)
{
    static const char *const yes[] = { "127.0.0.1:80",  "tcp://127.8.9.1:0", "localhost:1",         "[::1]:80",
                                       "tcp://[::1]:5", "ipc:///tmp/x",      "[::ffff:127.0.0.1]:1" };
    static const char *const no[] = {
        "0.0.0.0:80", "10.0.0.1:1", "tcp://*:1", "[::]:80", "127.0.0.1.example.org:1", "localhost.example.org:1",
        "",           "127.0.0.1",  "tcp://:1"
    };
    for (size_t i = 0; i < sizeof(yes) / sizeof(*yes); i++) cr_assert(config_is_loopback(yes[i]), "%s", yes[i]);
    for (size_t i = 0; i < sizeof(no) / sizeof(*no); i++) cr_assert(!config_is_loopback(no[i]), "%s", no[i]);
}

Test(config, flags_alone_make_a_node)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_DECODE, NULL,
                   "--coordinator tcp://127.0.0.1:7001 --model x/Tiny_1.Q4.gguf --name d1 --kv tcp://127.0.0.1:7100 "
                   "--threads 2 --max-seqs 8 --kv-memory 1GiB --admin [::1]:0 --ready-fd 5 --check-config",
                   &err) == OK,
              "%s", err.text);
    cr_assert_str_eq(run.cfg.coordinator.control.items[0], "tcp://127.0.0.1:7001");
    cr_assert_eq(run.cfg.n_decode, 1);
    cr_assert_str_eq(run.self->name, "d1");
    cr_assert_str_eq(run.self->model, "Tiny_1.Q4");
    cr_assert_str_eq(config_model_find(&run.cfg, run.self->model)->path, "x/Tiny_1.Q4.gguf");
    cr_assert_eq(run.self->kv_memory, 1ull << 30);
    cr_assert_eq(run.ready_fd, 5);
    cr_assert(run.check_only);
    config_fini(&run);
}

Test(config, a_node_finds_its_entry)
{
    static const char two[] = "models: [ { path: m.gguf } ]\nprefill:\n  - { name: a }\n  - { name: b, threads: 7 }\n";
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_PREFILL, two, "--config @ --name b", &err) == OK, "%s", err.text);
    cr_assert_eq(run.self, &run.cfg.prefill[1]);
    cr_assert_eq(run.self->threads, 7);
    config_fini(&run);
    cr_assert(load(&run, CONFIG_PREFILL, basic, "--config @", &err) == OK, "%s", err.text);
    cr_assert_str_eq(run.self->name, "p0");
    config_fini(&run);
    expect_refused(CONFIG_PREFILL, two, "--config @", "which prefill node is this? give --name: a, b");
    expect_refused(CONFIG_PREFILL, two, "--config @ --name c", "there is no prefill node c; there are a, b");
    expect_refused(CONFIG_DECODE, two, "--config @", "there is no decode node");
}

Test(config, serve_makes_a_cluster_of_two_nodes)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_SERVE, NULL, "-m x/y.gguf --host localhost --port 0 -t 3 --alias best", &err) == OK,
              "%s", err.text);
    cr_assert_str_eq(run.cfg.coordinator.http.items[0], "localhost:0");
    cr_assert_str_eq(run.cfg.models[0].name, "best");
    cr_assert_eq(run.cfg.n_prefill + run.cfg.n_decode, 2);
    cr_assert_eq(run.cfg.prefill[0].threads, 3);
    cr_assert_eq(run.cfg.decode[0].threads, 3);
    cr_assert_str_eq(run.cfg.decode[0].name, "d0");
    config_fini(&run);
    cr_assert_eq(load(&run, CONFIG_SERVE, NULL, "-m x/a-00001-of-00003.gguf", &err), OK, "%s", err.text);
    cr_assert_str_eq(run.cfg.models[0].name, "a"); /* of all its parts */
    config_fini(&run);
    cr_assert_eq(load(&run, CONFIG_SERVE, NULL, "-m x/weights.bin", &err), OK, "%s", err.text);
    cr_assert_str_eq(run.cfg.models[0].name, "weights.bin");
    config_fini(&run);
    expect_refused(CONFIG_SERVE, NULL, "-m x --host 0.0.0.0", "--host: 0.0.0.0:8080 is beyond loopback");
    expect_refused(CONFIG_SERVE, NULL, "-m x --port 70000", "--port: \"70000\" is not allowed; allowed: 0..65535");
    expect_refused(CONFIG_SERVE, NULL, "", "no model; give");
}

Test(config, up_takes_its_file_as_the_first_word)
{
    struct config_run run;
    struct error err = { 0 };
    cr_assert(load(&run, CONFIG_UP, basic, "@ --log-level debug", &err) == OK, "%s", err.text);
    cr_assert_str_eq(run.cfg.log.level, "debug");
    cr_assert_eq(run.cfg.n_decode, 1);
    config_fini(&run);
}

Test(config, the_sample_file_is_fine)
{
    struct config_run run;
    struct error err = { 0 };
    char *argv[] = { (char *)"x", (char *)"--config", (char *)TEST_DATA "/../deploy/config/local.yaml" };
    cr_assert(config_load(&run, CONFIG_DECODE, 3, argv, &err) == OK, "%s", err.text);
    cr_assert_str_eq(run.self->name, "d0");
    cr_assert_eq(run.self->threads, 1);
    cr_assert_str_eq(run.cfg.models[0].path, "models/SmolLM2-135M-Instruct.Q4_1.gguf");
    config_fini(&run);
}

Test(config, help_shows_flag_key_variable_and_default)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);
    config_help(f, CONFIG_DECODE, "baton-decode");
    fclose(f);
    static const char *const want[] = { "usage: baton-decode", "--coordinator VALUE",
                                        "-t, --threads VALUE", "decode[].max_seqs, BATON_DECODE_MAX_SEQS",
                                        "(default 512MiB)",    "kv.lanes, BATON_KV_LANES",
                                        "auto, never, always" };
    for (size_t i = 0; i < sizeof(want) / sizeof(*want); i++) {
        cr_assert(strstr(text, want[i]), "no \"%s\" in\n%s", want[i], text);
    }
    cr_assert_null(strstr(text, "--max-queue"));
    cr_assert(strstr(text, "  coordinator.max_queue ")); /* the file may hold it all the same */
    free(text);
}
