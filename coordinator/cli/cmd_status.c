/* cmd_status.c - `baton status`: the nodes of a running cluster, their load and KV use. */
#include "coordinator/cli/cell.h"
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

/* The columns that hold names, as wide as the longest. */
static const struct {
    const char *title, *key;
} text_columns[] = { { "NODE", "name" }, { "ROLE", "role" }, { "MODEL", "model" }, { "STATE", "state" } };
#define N_TEXTS (sizeof(text_columns) / sizeof(text_columns[0]))

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
    size_t i, width[N_TEXTS];
    for (size_t k = 0; k < N_TEXTS; k++) {
        width[k] = cell_width(text_columns[k].title);
        json_array_foreach(nodes, i, node) cell_fit(&width[k], text_at(node, text_columns[k].key));
    }
    for (size_t k = 0; k < N_TEXTS; k++) cell_print(text_columns[k].title, width[k]);
    printf("%8s %8s %14s %10s %10s\n", "RUNNING", "WAITING", "KV BLOCKS USED", "PREFILL/S", "DECODE/S");
    json_array_foreach(nodes, i, node)
    {
        long total = number_at(node, "blocks_total"), free_blocks = number_at(node, "blocks_free");
        for (size_t k = 0; k < N_TEXTS; k++) cell_print(text_at(node, text_columns[k].key), width[k]);
        printf("%8ld %8ld %7ld/%-6ld %10ld %10ld\n", number_at(node, "running"), number_at(node, "waiting"),
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
    else if (http != 200 && client_refusal(url, http, &answer, &err) != OK)
        fprintf(stderr, "error: %s\n", err.text);
    else if (!(root = json_loads(strbuf_cstr(&answer), 0, NULL)) || !json_is_array(json_object_get(root, "nodes")))
        fprintf(stderr, "error: what answers at %s is no coordinator\n", url);
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
