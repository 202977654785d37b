/* commands: what an operator types and reads, for the commands that need no cluster. */
#include "tests/unit/cli/run_baton.h"
#include "tests/unit/coordinator/bytes_model.h"

static char model[64];

static void write_model(const char *chat_template)
{
    snprintf(model, sizeof(model), "/tmp/baton-cli-%d.gguf", (int)getpid());
    bytes_model_write(model, "llama", chat_template);
}

static void remove_model(void)
{
    unlink(model);
}

Test(commands, are_found_in_their_table)
{
    static const char usage[] =
        "usage: baton COMMAND [ARGUMENTS]\n\n"
        "  serve     -m FILE.gguf: a coordinator, a prefill and a decode node on this machine\n"
        "  up        CLUSTER.yaml: every process of a cluster on this machine\n"
        "  chat      talk to a running cluster\n"
        "  status    nodes of a running cluster, their load and KV use\n"
        "  inspect   -m FILE.gguf: what is in a model file\n"
        "  doctor    the GPUs of this machine, and what nodes would compute with\n"
        "  tokenize  -m FILE.gguf [TEXT]: text, or standard input, to token ids, or back with --decode\n"
        "\n`baton COMMAND --help` says more.\n";
    expect_run("", NULL, NULL, 2, "", usage);
    expect_run("help", NULL, NULL, 0, usage, "");
    expect_run("-h", NULL, NULL, 0, usage, "");
    expect_run("--help", NULL, NULL, 0, usage, "");
    expect_run("--version", NULL, NULL, 0, "baton " BATON_VERSION "\n", "");
    expect_run("bogus", NULL, NULL, 2, "", "baton: unknown command \"bogus\"\n\nusage: baton COMMAND");
    expect_run("inspect", NULL, NULL, 2, "", "baton inspect: one file is needed, 0 are given; --help says more");
    expect_run("inspect a b", NULL, NULL, 2, "", "one file is needed, 2 are given");
    expect_run("inspect -m a b", NULL, NULL, 2, "", "one file is needed, 2 are given");
    expect_run("tokenize -m a b c", NULL, NULL, 2, "", "one text is taken, 2 are given; put it in quotes");
    expect_run("chat --temperature 101", NULL, NULL, 2, "", "--temperature: \"101\" is not allowed; allowed: 0..100");
    expect_run("chat --temperature -1", NULL, NULL, 2, "", "\"-1\" is not allowed");
    expect_run("chat --temperature 1x", NULL, NULL, 2, "", "\"1x\" is not allowed");
    expect_run("chat --max-tokens 0", NULL, NULL, 2, "", "max-tokens");
    expect_run("status --bogus", NULL, NULL, 2, "", "bogus");
}

Test(commands, tokenize_text_and_back)
{
    static const struct {
        const char *line, *input, *out;
        int code;
        const char *err;
    } rows[] = {
        { "tokenize -m @ ab", NULL, "[97,98]\n", 0, "" },
        { "tokenize -m @", "a\nb", "[97,10,98]\n", 0, "" },
        { "tokenize -m @", NULL, "[]\n", 0, "" },
        { "tokenize -m @ a<|end|>", NULL, "[97,60,124,101,110,100,124,62]\n", 0, "" },
        { "tokenize -m @ --parse-special a<|end|>", NULL, "[97,256]\n", 0, "" },
        { "tokenize -m @ --add-special a", NULL, "[257,97]\n", 0, "" },
        { "tokenize -m @ --decode [97,98,256]", NULL, "ab<|end|>", 0, "" },
        { "tokenize -m @ --decode", "[ 258,\n 10 ]", "word\n", 0, "" },
        { "tokenize -m @ --decode []", NULL, "", 0, "" },
        { "tokenize -m @ --decode [97,259]", NULL, "", 1, "error: element 1: token id 259 is not in 0..258" },
        { "tokenize -m @ --decode [-1]", NULL, "", 1, "error: element 0: token id -1 is not in 0..258" },
        { "tokenize -m @ --decode [1,2.0]", NULL, "", 1, "error: element 1 is not an integer" },
        { "tokenize -m @ --decode {}", NULL, "", 1, "error: the input is not a JSON array of token ids" },
        { "tokenize -m @ --decode", "[1,\n x]", "", 1, "error: the input is not JSON: line 2, column 2" },
        { "tokenize -m /no/such.gguf a", NULL, "", 1, "error: " },
    };
    write_model(NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        expect_run(rows[i].line, model, rows[i].input, rows[i].code, rows[i].out, rows[i].err);
    remove_model();
}

Test(commands, inspect_prints_a_template_and_nothing_else)
{
    write_model("{{ 1 }}\nx");
    expect_run("inspect --template @", model, NULL, 0, "{{ 1 }}\nx\n", "");
    write_model(NULL);
    expect_run("inspect --template -m @", model, NULL, 1, "", "tokenizer.chat_template");
    expect_run("inspect /no/such.gguf", model, NULL, 1, "", "error: ");
    remove_model();
}

/* Every kind of value, texts with bytes that a terminal would obey, tensors of several types. */
static void write_varied(void)
{
    struct gguf_build b;
    const char *texts[] = { "one", "tw\n\x01o", "\xC3\xA9t\xC3\xA9 is a long summer", "4", "5", "6", "7" };
    int32_t ints[] = { -1, 2, 3, 4, 5, 6 };
    float floats[] = { 0.5f, 1e-7f };
    uint8_t u8 = 200, flag = 1;
    int8_t i8 = -5;
    uint16_t u16 = 60000;
    int16_t i16 = -300;
    int64_t i64 = -5000000000;
    double f64 = 3.141592653589793;
    char longest[128];
    memset(longest, 'x', 127);
    longest[127] = '\0';
    memcpy(longest + 71, "\xC3\xA9", 2); /* a letter over the end of what is shown */
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.architecture", "none");
    gguf_build_str(&b, "a.text", "line\nesc\x1b[2J\x7f");
    gguf_build_str(&b, "a.long", longest);
    gguf_build_u32(&b, "a.u32", 7);
    gguf_build_i32(&b, "a.i32", -7);
    gguf_build_u64(&b, "a.u64", 1ull << 40);
    gguf_build_f32(&b, "a.f32", 0.1f);
    gguf_build_bool(&b, "a.bool", false);
    gguf_build_raw(&b, "a.u8", 0, &u8, 1);
    gguf_build_raw(&b, "a.i8", 1, &i8, 1);
    gguf_build_raw(&b, "a.u16", 2, &u16, 2);
    gguf_build_raw(&b, "a.i16", 3, &i16, 2);
    gguf_build_raw(&b, "a.i64", 11, &i64, 8);
    gguf_build_raw(&b, "a.f64", 12, &f64, 8);
    gguf_build_raw(&b, "a.flag", 7, &flag, 1);
    gguf_build_strs(&b, "a.texts", texts, 7);
    gguf_build_i32s(&b, "a.ints", ints, 6);
    gguf_build_f32s(&b, "a.floats", floats, 2);
    gguf_build_strs(&b, "a.none", texts, 0);
    gguf_build_tensor(&b, "first", 0, 2, (uint64_t[]){ 32, 3 }, NULL, 32 * 3 * 4);
    gguf_build_tensor(&b, "second.weight", 0, 1, (uint64_t[]){ 64 }, NULL, 256);
    gguf_build_tensor(&b, "third", 8, 2, (uint64_t[]){ 64, 2 }, NULL, 2 * 2 * 34);
    cr_assert(gguf_build_save(&b, model));
}

Test(commands, inspect_shows_all_of_a_file)
{
    static const char want[] = "size         1672 bytes (1.6 KiB)\n"
                               "format       GGUF v3\n";
    static const char rest[] =
        "parameters   288 (0.0 M), 21.56 bits each\n\nmetadata (19)\n"
        "  general.architecture  string  none\n"
        "  a.text                string  line\\nesc?[2J?\n"
        "  a.long                string  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx... "
        "(127 bytes)\n"
        "  a.u32                 u32     7\n"
        "  a.i32                 i32     -7\n"
        "  a.u64                 u64     1099511627776\n"
        "  a.f32                 f32     0.100000001\n"
        "  a.bool                bool    false\n"
        "  a.u8                  u8      200\n"
        "  a.i8                  i8      -5\n"
        "  a.u16                 u16     60000\n"
        "  a.i16                 i16     -300\n"
        "  a.i64                 i64     -5000000000\n"
        "  a.f64                 f64     3.14159265\n"
        "  a.flag                bool    true\n"
        "  a.texts               array   7 x string [\"one\", \"tw\\n?o\", \"\xC3\xA9t\xC3\xA9 is a long ... (22 "
        "bytes)\", "
        "\"4\", \"5\", \"6\", ...]\n"
        "  a.ints                array   6 x i32 [-1, 2, 3, 4, 5, 6]\n"
        "  a.floats              array   2 x f32 [0.5, 1.00000001e-07]\n"
        "  a.none                array   0 x string []\n"
        "\ntensors (3)\n"
        "  F32           2 tensors              160 parameters  640 B\n"
        "  Q8_0          1 tensors              128 parameters  136 B\n";
    static const char tensors[] = "\n"
                                  "  first          F32      32 x 3                              384 bytes at ";
    struct run r;
    write_model(NULL);
    write_varied();
    for (int all = 0; all < 2; all++) {
        r = run_start(all ? "inspect @ --tensors" : "inspect -m @", model, NULL);
        run_wait(&r, NULL);
        cr_assert_eq(r.code, 0, "%s", strbuf_cstr(&r.err));
        cr_assert(strstr(r.out.s, want), "%s", r.out.s);
        cr_assert(strstr(r.out.s, rest), "%s", r.out.s);
        cr_assert_eq(strstr(r.out.s, tensors) != NULL, all, "%s", r.out.s);
        cr_assert_eq(strstr(r.out.s, "  second.weight  F32      64 ") != NULL, all, "%s", r.out.s);
        cr_assert(strstr(r.out.s, "\nnot served\n  "), "%s", r.out.s);
        run_fini(&r);
    }
    remove_model();
}

Test(commands, inspect_says_what_makes_answers_worse)
{
    write_model(NULL);
    struct run r = run_start("inspect @", model, NULL);
    run_wait(&r, NULL);
    cr_assert(strstr(r.out.s, "\nnotes\n  "), "%s", r.out.s);
    cr_assert(strstr(r.out.s, "\n  tokenizer.chat_template is missing: chat is answered with 501\n"), "%s", r.out.s);
    cr_assert(strstr(r.out.s, "\nnot served\n  "), "it has no layers: %s", r.out.s);
    cr_assert_null(strstr(strstr(r.out.s, "\nnotes\n") + 1, "\nnotes\n"), "one heading is enough");
    run_fini(&r);
    remove_model();
}

Test(commands, a_full_standard_output_is_a_failure)
{
    char path[PATH_MAX], command[PATH_MAX + 64];
    baton_path(path);
    snprintf(command, sizeof(command), "'%s' --version > /dev/full 2> /dev/null", path);
    int status = system(command);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 1);
}

Test(commands, say_that_no_cluster_answers)
{
    expect_run("status --url http://127.0.0.1:1", NULL, NULL, 1, "",
               "error: no cluster answers at http://127.0.0.1:1 (start one with `baton serve -m FILE.gguf`)");
    expect_run("chat -p hi -u http://127.0.0.1:1", NULL, NULL, 1, "",
               "error: no cluster answers at http://127.0.0.1:1");
    expect_run("status --url ftp://127.0.0.1", NULL, NULL, 1, "", "error: ftp://127.0.0.1/admin/nodes: ");
}

Test(commands, check_a_configuration_of_a_host)
{
    static const char yaml[] = "models: [ { name: a, path: m.gguf } ]\nprefill: [ {}, {} ]\ndecode: [ {} ]\n";
    char path[64];
    snprintf(path, sizeof(path), "/tmp/baton-cli-%d.yaml", (int)getpid());
    FILE *f = fopen(path, "w");
    fputs(yaml, f);
    fclose(f);
    expect_run("up --config @ --check-config", path, NULL, 0, "configuration is fine: 2 prefill, 1 decode\n", "");
    expect_run("serve -m a.gguf --check-config", NULL, NULL, 0, "configuration is fine: 1 prefill, 1 decode\n", "");
    expect_run("serve -m a.gguf --bogus", NULL, NULL, 2, "", "error: ");
    unlink(path);
}
