/* limits: the least and the most that each option takes, and what lies just outside. */
#include "config/config.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* Loads with `flag=value` alone; the error's text, "" if it is taken. */
static const char *load_with(enum config_role role, const char *flag, const char *value)
{
    static struct error err;
    static char word[256];
    struct config_run run;
    char *argv[] = { (char *)"test", (char *)"--model", (char *)"m.gguf", word, (char *)"--name", (char *)"n0" };
    bool is_node = role == CONFIG_PREFILL || role == CONFIG_DECODE;
    snprintf(word, sizeof(word), "%s=%s", flag, value);
    err = (struct error){ 0 };
    if (config_load(&run, role, is_node ? 6 : 4, argv, &err) != OK) return err.text;
    config_fini(&run);
    return "";
}

static void expect_taken(enum config_role role, const char *flag, const char *value)
{
    const char *got = load_with(role, flag, value);
    /* limits that depend on each other are another test's */
    cr_assert(!strstr(got, "is not allowed"), "%s %s: %s", flag, value, got);
}

static void expect_refused(enum config_role role, const char *flag, const char *value, const char *allowed)
{
    char want[300];
    const char *got = load_with(role, flag, value);
    snprintf(want, sizeof(want), "%s: \"%.80s\" is not allowed; allowed: %s", flag, value, allowed);
    cr_assert_str_eq(got, want);
}

Test(limits, of_numbers)
{
    static const enum config_role C = CONFIG_COORDINATOR, P = CONFIG_PREFILL, D = CONFIG_DECODE;
    const struct {
        enum config_role role;
        const char *flag, *least, *most, *below, *above; /* NULL: there is none */
        const char *allowed;
    } rows[] = {
        { C, "--port", "0", "65535", NULL, "65536", "0..65535" },
        { D, "--weights-fd", "0", "1048576", NULL, "1048577", "0..1048576" },
        { C, "--max-queue", "0", "1000000", NULL, "1000001", "0..1000000" },
        { C, "--max-queue-bytes", "1MiB", "1TiB", "1048575", "1025GiB", "1MiB..1TiB in bytes, KiB, MiB or GiB" },
        { C, "--max-body-bytes", "1KiB", "1GiB", "1023", "1073741825", "1KiB..1GiB in bytes, KiB, MiB or GiB" },
        { C, "--max-connections", "1", "100000", "0", "100001", "1..100000" },
        { C, "--max-connections-per-address", "0", "100000", NULL, "100001", "0..100000" },
        { C, "--workers", "1", "32", "0", "33", "1..32" },
        { C, "--max-work", "1", "1000000", "0", "1000001", "1..1000000" },
        { C, "--max-work-bytes", "1MiB", "1TiB", "1023KiB", "1025GiB", "1MiB..1TiB in bytes, KiB, MiB or GiB" },
        { C, "--request-timeout", "1s", "24h", "999ms", "25h", "1s..24h with ms, s, m or h" },
        { C, "--progress-timeout", "100ms", "1h", "99ms", "61m", "100ms..1h with ms, s, m or h" },
        { C, "--node-wait", "0", "1h", NULL, "3601s", "0..1h with ms, s, m or h" },
        { D, "--shutdown-timeout", "0", "60m", NULL, "3600001ms", "0..1h with ms, s, m or h" },
        { C, "--heartbeat", "100ms", "60s", "99ms", "61s", "100ms..1m with ms, s, m or h" },
        { D, "--link-bytes", "64KiB", "1GiB", "65535", "1025MiB", "64KiB..1GiB in bytes, KiB, MiB or GiB" },
        { C, "--dead-after", "2s", "600s", "1999ms", "601s", "2s..10m with ms, s, m or h" },
        { C, "--max-attempts", "1", "100", "0", "101", "1..100" },
        { C, "--default-max-tokens", "0", "16777216", NULL, "16777217", "0..16777216" },
        { C, "--max-prompt-logprobs", "0", "1000", NULL, "1001", "0..1000" },
        { D, "--kv-lanes", "1", "16", "0", "17", "1..16" },
        { D, "--kv-frame-bytes", "64KiB", "4MiB", "63KiB", "4194305", "64KiB..4MiB in bytes, KiB, MiB or GiB" },
        { D, "--kv-credit-bytes", "1MiB", "16GiB", "1023KiB", "17GiB", "1MiB..16GiB in bytes, KiB, MiB or GiB" },
        { D, "--kv-swap-bytes", "0", "16TiB", NULL, "17TiB", "0..16TiB in bytes, KiB, MiB or GiB" },
        { D, "--kv-snapshot-bytes", "0", "16TiB", NULL, "17TiB", "0..16TiB in bytes, KiB, MiB or GiB" },
        { D, "--kv-tier-bytes", "0", "16TiB", NULL, "17TiB", "0..16TiB in bytes, KiB, MiB or GiB" },
        { D, "--kv-tier-disk-bytes", "0", "64TiB", NULL, "65TiB", "0..64TiB in bytes, KiB, MiB or GiB" },
        { P, "--threads", "0", "1024", NULL, "1025", "0..1024" },
        { P, "--tp", "1", "64", "0", "65", "1..64" },
        { P, "--pp", "1", "64", "0", "65", "1..64" },
        { P, "--max-seqs", "1", "4096", "0", "4097", "1..4096" },
        { P, "--kv-memory", "1MiB", "16TiB", "1", "17TiB", "auto, or 1MiB..16TiB in bytes, KiB, MiB or GiB" },
        { P, "--kv-memory", "auto", "16TiB", "0", "17TiB", "auto, or 1MiB..16TiB in bytes, KiB, MiB or GiB" },
        { P, "--gpu-memory", "64MiB", "16TiB", "63MiB", "17TiB", "auto, or 64MiB..16TiB in bytes, KiB, MiB or GiB" },
        { P, "--max-batch-tokens", "64", "65536", "63", "65537", "64..65536" },
        { P, "--chunk-tokens", "64", "65536", "63", "65600", "64..65536 in steps of 64" },
        { P, "--chunk-tokens", "128", "192", "96", "129", "64..65536 in steps of 64" },
        { D, "--max-gap", "0", "1h", NULL, "61m", "0..1h with ms, s, m or h" },
        { P, "--max-context", "0", "16777216", NULL, "16777217", "0..16777216" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        expect_taken(rows[i].role, rows[i].flag, rows[i].least);
        expect_taken(rows[i].role, rows[i].flag, rows[i].most);
        if (rows[i].below) expect_refused(rows[i].role, rows[i].flag, rows[i].below, rows[i].allowed);
        expect_refused(rows[i].role, rows[i].flag, rows[i].above, rows[i].allowed);
        expect_refused(rows[i].role, rows[i].flag, "x", rows[i].allowed);
        expect_refused(rows[i].role, rows[i].flag, "99999999999999999999", rows[i].allowed);
    }
    expect_taken(C, "--max-body-bytes", "2 MiB");
    expect_taken(C, "--max-body-bytes", "2048B");
    expect_refused(C, "--max-body-bytes", "2mib", "1KiB..1GiB in bytes, KiB, MiB or GiB");
    expect_refused(C, "--max-body-bytes", "17179869184GiB", "1KiB..1GiB in bytes, KiB, MiB or GiB"); /* 2^64 */
    expect_refused(C, "--heartbeat", "1000", "100ms..1m with ms, s, m or h");
    expect_refused(C, "--workers", "-1", "1..32");
    expect_refused(C, "--workers", "2s", "1..32");
}

static void texts(enum config_role role, const char *flag, const char *allowed, const char *const *fine,
                  const char *const *bad)
{
    for (; *fine; fine++) expect_taken(role, flag, *fine);
    for (; *bad; bad++) expect_refused(role, flag, *bad, allowed);
}

#define LIST(...) ((const char *const[]){ __VA_ARGS__, NULL })

Test(limits, of_texts)
{
    static char long63[64], long64[65], path100[128], path101[128], unix100[128], unix101[128];
    memset(long63, 'n', 63);
    memset(long64, 'n', 64);
    snprintf(path100, sizeof(path100), "ipc://%0100d", 0);
    snprintf(path101, sizeof(path101), "ipc://%0101d", 0);
    snprintf(unix100, sizeof(unix100), "unix:%0100d", 0);
    snprintf(unix101, sizeof(unix101), "unix:%0101d", 0);
    texts(CONFIG_COORDINATOR, "--any-model", "true or false", LIST("true", "yes", "on", "1", "false", "no", "off", "0"),
          LIST("maybe", "2", "TRUE"));
    texts(CONFIG_COORDINATOR, "--log-level", "error, warn, info, debug", LIST("error", "warn", "info", "debug"),
          LIST("err", "errors", "error|warn", "warn,info", "|"));
    texts(CONFIG_COORDINATOR, "--model-name", "1 to 63 of A-Z a-z 0-9 . _ - and single / between them",
          LIST("a", "org/na-me_1.5", long63), LIST("/a", "a/", "a//b", "a b", "a:b", long64));
    texts(CONFIG_COORDINATOR, "--http", "host:port, [v6]:port or unix:path",
          LIST("127.0.0.1:0", "localhost:80", "[::1]:80", "unix:/x", unix100),
          LIST("127.0.0.1", "tcp://127.0.0.1:80", "unix:", unix101, "127.0.0.1:80-81", "127.0.0.1:65536"));
    texts(CONFIG_COORDINATOR, "--control", "tcp://host:port or ipc://path",
          LIST("tcp://127.0.0.1:80", "ipc://x", path100),
          LIST("127.0.0.1:80", "ipc://", path101, "tcp://127.0.0.1:80-81", "udp://127.0.0.1:80"));
    texts(CONFIG_DECODE, "--admin", "host:port or host:low-high", LIST("127.0.0.1:80", "127.0.0.1:80-81", "[::1]:7-9"),
          LIST("unix:/x", "tcp://127.0.0.1:80", "127.0.0.1:81-80"));
    texts(CONFIG_DECODE, "--kv", "tcp://host:port or tcp://host:low-high",
          LIST("tcp://127.0.0.1:80", "tcp://127.0.0.1:80-89"), LIST("127.0.0.1:80", "ipc://x"));
    texts(CONFIG_DECODE, "--kv-advertise", "tcp://host:port", LIST("tcp://127.0.0.1:80", ""),
          LIST("tcp://127.0.0.1:80-89"));
    texts(CONFIG_DECODE, "--cpus", "a list of numbers such as 0-3,6", LIST("0", "0-3,6", ""), LIST("3-0", "x", "0,"));
    texts(CONFIG_DECODE, "--isa", "auto, ref, avx2, vnni256, avxvnni, avx512, vnni, amx", LIST("auto", "ref", "amx"),
          LIST("sse", "avx"));
    texts(CONFIG_DECODE, "--weights", "auto, resident, stream", LIST("auto", "stream"), LIST("streams"));
    texts(CONFIG_DECODE, "--io", "auto, uring, pread, mmap", LIST("uring"), LIST("aio"));
    texts(CONFIG_DECODE, "--local-prefill", "auto, never, always", LIST("auto", "never", "always"), LIST("sometimes"));
    texts(CONFIG_DECODE, "--kv-codec", "int8, f16", LIST("int8", "f16"), LIST("f32"));
    texts(CONFIG_DECODE, "--kv-rotate", "auto, on, off", LIST("auto", "on", "off"), LIST("true"));
    texts(CONFIG_DECODE, "--prefix-cache", "on, off", LIST("on", "off"), LIST("yes"));
}

Test(limits, of_how_many)
{
    struct config_run run;
    struct error err = { 0 };
    char list[512] = "",
         *argv[] = { (char *)"test", (char *)"--model", (char *)"m.gguf", (char *)"--trusted-proxies", list };
    for (int i = 0; i < CONFIG_MAX_ITEMS; i++)
        snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s10.0.0.%d", i ? "," : "", i);
    cr_assert_eq(config_load(&run, CONFIG_COORDINATOR, 5, argv, &err), OK, "%s", err.text);
    cr_assert_eq(run.cfg.coordinator.trusted_proxies.n, CONFIG_MAX_ITEMS);
    cr_assert_str_eq(run.cfg.coordinator.trusted_proxies.items[CONFIG_MAX_ITEMS - 1], "10.0.0.15");
    config_fini(&run);
    snprintf(list + strlen(list), sizeof(list) - strlen(list), ",10.0.0.3"); /* known already */
    cr_assert_eq(config_load(&run, CONFIG_COORDINATOR, 5, argv, &err), OK, "%s", err.text);
    cr_assert_eq(run.cfg.coordinator.trusted_proxies.n, CONFIG_MAX_ITEMS);
    config_fini(&run);
    snprintf(list + strlen(list), sizeof(list) - strlen(list), ",10.0.0.99");
    cr_assert_eq(config_load(&run, CONFIG_COORDINATOR, 5, argv, &err), ERR_FULL);
    cr_assert(strstr(err.text, "--trusted-proxies: more than 16 values"), "%s", err.text);
}
