/* cmd_status.c - `baton status`: the nodes of a running cluster, their load and KV use. */
#include "coordinator/cli/cli.h"
#include "coordinator/cli/client.h"

#include <jansson.h>
#include <stdio.h>

struct status_options {
    char *url;
    bool json;
};

#define AT(field) offsetof(struct status_options, field)

static const struct config_option OPTIONS[] = {
    CLI_URL(AT(url)),
    COMMAND_SWITCH("json", NULL, AT(json), "the coordinator's answer as it is"),
};
static const struct command COMMAND = { "baton status", NULL, NULL, OPTIONS, sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

static long number_at(const json_t *o, const char *key)
{
    return (long)json_number_value(json_object_get(o, key));
}

static const char *text_at(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "-";
}

static void print_nodes(const json_t *root)
{
    const json_t *nodes = json_object_get(root, "nodes"), *node;
    size_t i;
    printf("%-16s %-8s %-16s %-9s %8s %8s %14s %10s %10s\n", "NODE", "ROLE", "MODEL", "STATE", "RUNNING", "WAITING",
           "KV BLOCKS USED", "PREFILL/S", "DECODE/S");
    json_array_foreach(nodes, i, node)
    {
        long total = number_at(node, "blocks_total"), free_blocks = number_at(node, "blocks_free");
        printf("%-16s %-8s %-16s %-9s %8ld %8ld %7ld/%-6ld %10ld %10ld\n", text_at(node, "name"), text_at(node, "role"),
               text_at(node, "model"), text_at(node, "state"), number_at(node, "running"), number_at(node, "waiting"),
               total - free_blocks, total, number_at(node, "prefill_tok_s"), number_at(node, "decode_tok_s"));
    }
    printf("\nrequests: %ld running, %ld waiting\n", number_at(root, "requests_running"),
           number_at(root, "requests_waiting"));
}

static int show(const char *url, bool as_json)
{
    struct strbuf answer = STRBUF_INIT;
    struct error err = { 0 };
    long http = 0;
    json_t *root = NULL;
    int rc = 1;
    if (client_request(url, "/admin/nodes", NULL, NULL, NULL, &answer, &http, &err) != OK)
        fprintf(stderr, "error: %s\n", err.text);
    else if (http != 200 || !(root = json_loads(strbuf_cstr(&answer), 0, NULL)))
        fprintf(stderr, "error: HTTP %ld from %s/admin/nodes: %s\n", http, url, strbuf_cstr(&answer));
    else {
        rc = 0;
        if (as_json)
            printf("%s\n", strbuf_cstr(&answer));
        else
            print_nodes(root);
    }
    json_decref(root);
    strbuf_fini(&answer);
    return rc;
}

int cmd_status(int argc, char **argv)
{
    struct status_options o = { 0 };
    int rc = command_parse(&COMMAND, &o, argc, argv, NULL);
    if (rc >= 0) return rc;
    rc = show(o.url, o.json);
    command_free(&COMMAND, &o);
    return rc;
}
