/* config_ports: what processes of one host bind must not clash; ranges have room for all who share them. */
#include "config/config.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "" if the cluster of `yaml` (all but its models) is fine for `role`, else what is said, behind the file's name. */
static const char *check(enum config_role role, const char *yaml, const char *flag, const char *value)
{
    static struct error err;
    static char path[64];
    struct config_run run;
    snprintf(path, sizeof(path), "/tmp/baton-ports-XXXXXX");
    int fd = mkstemp(path);
    FILE *f = fdopen(fd, "w");
    fprintf(f, "models: [ { path: m.gguf } ]\n%s", yaml);
    fclose(f);
    char *argv[] = { (char *)"test", (char *)"--config", path, (char *)(uintptr_t)flag, (char *)(uintptr_t)value };
    enum status st = config_load(&run, role, flag ? 5 : 3, argv, &err);
    unlink(path);
    if (st == OK) config_fini(&run);
    if (st == OK) return "";
    return strncmp(err.text, path, strlen(path)) == 0 ? err.text + strlen(path) : err.text;
}

static void refused(enum config_role role, const char *yaml, const char *says)
{
    const char *got = check(role, yaml, NULL, NULL);
    cr_assert(strstr(got, says), "want \"%s\" in \"%s\"", says, got);
}

static void fine(enum config_role role, const char *yaml)
{
    cr_assert_str_eq(check(role, yaml, NULL, NULL), "", "%s", yaml);
}

#define D0 "decode:\n  - { name: d0 }\n"

Test(ports, of_one_host_are_compared_and_both_keys_are_named)
{
    refused(CONFIG_COORDINATOR, "coordinator: { http: \"127.0.0.1:9000\", control: \"tcp://127.0.0.1:9000\" }\n",
            ":2: coordinator.control: port 9000 of tcp://127.0.0.1:9000 overlaps port 9000 of ");
    refused(
        CONFIG_UP, "prefill:\n  - { admin: \"127.0.0.1:8080\" }\n" D0,
        ":3: prefill[0].admin: port 8080 of 127.0.0.1:8080 overlaps port 8080 of coordinator.http (127.0.0.1:8080)");
    refused(CONFIG_UP, "prefill:\n  - { admin: \"localhost:7000\" }\n  - { admin: \"127.0.0.1:7000\" }\n" D0,
            ":4: prefill[1].admin: port 7000 of 127.0.0.1:7000 overlaps port 7000 of ");
    refused(CONFIG_UP,
            "coordinator: { http: \"0.0.0.0:7000\" }\nsecurity: { insecure: true }\n"
            "decode:\n  - { admin: \"127.0.0.1:7000\" }\n",
            ":5: decode[0].admin: port 7000");
    refused(CONFIG_UP,
            "coordinator: { control: \"ipc:///tmp/x\", http: \"127.0.0.1:1\" }\n"
            "decode:\n  - { admin: \"[::1]:7000\" }\n  - { admin: \"[::1]:7000\" }\n",
            ":5: decode[1].admin: port 7000 of [::1]:7000");
    fine(CONFIG_UP, "decode:\n  - { admin: \"127.0.0.1:7000\" }\n  - { admin: \"127.0.0.2:7000\" }\n"
                    "  - { admin: \"[::1]:7000\" }\n  - {}\n  - {}\n");
}

Test(ports, of_lanes_follow_the_first)
{
    refused(
        CONFIG_UP, "decode:\n  - { kv: \"tcp://127.0.0.1:9100\" }\n  - { kv: \"tcp://127.0.0.1:9101\" }\n",
        ":4: decode[1].kv: ports 9101-9102 of tcp://127.0.0.1:9101, one for each lane, overlap ports 9100-9101 of ");
    fine(CONFIG_UP, "decode:\n  - { kv: \"tcp://127.0.0.1:9100\" }\n  - { kv: \"tcp://127.0.0.1:9102\" }\n");
    fine(CONFIG_UP, "kv: { lanes: 1 }\ndecode:\n  - { kv: \"tcp://127.0.0.1:9100\" }\n"
                    "  - { kv: \"tcp://127.0.0.1:9101\" }\n");
    refused(CONFIG_UP, "decode:\n  - { kv: \"tcp://127.0.0.1:65535\" }\n",
            ":3: decode[0].kv: tcp://127.0.0.1:65535: the last of 2 lanes would have port 65536");
}

Test(ports, of_several_hosts_are_not_compared_unless_the_address_is_the_same)
{
#define WIDE "security: { insecure: true }\ncoordinator: { control: \"tcp://10.0.0.1:9090\" }\n"
    fine(CONFIG_COORDINATOR, WIDE "prefill:\n  - { admin: \"0.0.0.0:8080\" }\n  - { admin: \"127.0.0.1:8080\" }\n" D0);
    fine(CONFIG_DECODE, WIDE "prefill:\n  - { admin: \"10.0.0.2:8080\" }\ndecode:\n  - { admin: \"10.0.0.3:8080\" }\n");
    refused(CONFIG_COORDINATOR,
            WIDE "prefill:\n  - { admin: \"10.0.0.2:7000\" }\ndecode:\n  - { kv: \"tcp://10.0.0.2:7000\" }\n",
            ":7: decode[0].kv: ports 7000-7001 of tcp://10.0.0.2:7000, one for each lane, overlap port 7000 of ");
    refused(CONFIG_DECODE, WIDE "decode:\n  - { admin: \"0.0.0.0:7001\", kv: \"tcp://10.0.0.2:7000\" }\n",
            ":5: decode[0].admin: port 7001 of 0.0.0.0:7001 overlaps ports 7000-7001 of ");
    /* Started together they are on one host after all. */
    refused(CONFIG_UP, WIDE "prefill:\n  - { admin: \"0.0.0.0:8080\" }\n" D0, "coordinator.http");
}

Test(ports, of_a_node_by_flags_are_compared_with_what_is_known)
{
    struct config_run run;
    struct error err = { 0 };
    char *clash[] = { (char *)"x", (char *)"--model=m", (char *)"--admin=127.0.0.1:9090" };
    cr_assert(config_load(&run, CONFIG_DECODE, 3, clash, &err) != OK);
    cr_assert(strstr(err.text, "--admin: port 9090 of 127.0.0.1:9090 overlaps port 9090 of coordinator.control"), "%s",
              err.text);
    char *unknown[] = { (char *)"x", (char *)"--model=m", (char *)"--admin=127.0.0.1:8080" };
    cr_assert(config_load(&run, CONFIG_DECODE, 3, unknown, &err) == OK, "%s", err.text);
    config_fini(&run);
}

Test(ports, of_a_range_are_shared_where_the_ranges_are_equal)
{
    fine(CONFIG_UP, "decode:\n  - { kv: \"tcp://127.0.0.1:9100-9103\" }\n  - { kv: \"tcp://127.0.0.1:9100-9103\" }\n");
    refused(CONFIG_UP,
            "decode:\n  - { kv: \"tcp://127.0.0.1:9100-9102\" }\n  - { kv: \"tcp://127.0.0.1:9100-9102\" }\n",
            ":3: decode[0].kv: tcp://127.0.0.1:9100-9102 holds 3 ports and those that share it need 4");
    refused(CONFIG_UP, "kv: { lanes: 4 }\ndecode:\n  - { kv: \"tcp://127.0.0.1:9100-9102\" }\n",
            ":4: decode[0].kv: tcp://127.0.0.1:9100-9102 holds 3 ports and 4 lanes need one each");
    refused(CONFIG_UP,
            "decode:\n  - { kv: \"tcp://127.0.0.1:9100-9110\" }\n  - { kv: \"tcp://127.0.0.1:9105-9120\" }\n",
            ":4: decode[1].kv: ports 9105-9120 of ");
    refused(CONFIG_UP,
            "coordinator: { http: \"127.0.0.1:9105\" }\ndecode:\n  - { kv: \"tcp://127.0.0.1:9100-9110\" }\n",
            ":4: decode[0].kv: ports 9100-9110 of ");
    fine(CONFIG_UP,
         "prefill:\n  - { admin: \"127.0.0.1:9200-9201\" }\ndecode:\n  - { admin: \"127.0.0.1:9200-9201\" }\n");
}

Test(ports, ranges_are_low_high_and_for_some_sockets_only)
{
    static const char *const bad[] = { "9199-9100", "0-9", "1-", "-1", "1-70000", "1-2-3", "1-2x" };
    char yaml[128];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        snprintf(yaml, sizeof(yaml), "decode:\n  - { kv: \"tcp://127.0.0.1:%s\" }\n", bad[i]);
        refused(CONFIG_UP, yaml, "is not allowed; allowed: tcp://host:port or tcp://host:low-high");
    }
    refused(CONFIG_UP, "coordinator: { control: \"tcp://127.0.0.1:1-2\" }\n" D0,
            "coordinator.control: \"tcp://127.0.0.1:1-2\"");
    refused(CONFIG_UP, "decode:\n  - { kv: \"ipc:///tmp/x\" }\n", "is not allowed");
}
