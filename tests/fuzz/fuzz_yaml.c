/* fuzz_yaml: any bytes as a cluster file: a tree or a message that names a line, nothing else. */
#include "config/config_internal.h"
#include "config/yaml.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static uint32_t count(const struct ynode *node, uint32_t depth)
{
    uint32_t n = 1;
    if (depth > YTREE_MAX_DEPTH) abort();
    for (const struct ynode *c = node->first; c; c = c->next) n += count(c, depth + 1);
    return n;
}

/* The same bytes through the option table, by way of a file in memory. */
static void load_config(const uint8_t *data, size_t n)
{
    static int fd = -1;
    char path[40];
    if (fd < 0) fd = memfd_create("fuzz", 0);
    if (fd < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, data, n, 0) != (ssize_t)n) abort();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    char *argv[] = { (char *)"fuzz", (char *)"--config", path };
    struct config_run run;
    struct error err = { 0 };
    if (config_load(&run, CONFIG_COORDINATOR, 3, argv, &err) == OK) {
        config_fini(&run);
    } else if (err.text[0] == '\0') {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct ynode *root = NULL;
    struct error err = { 0 };
    if (ytree_parse(&root, "f", bytes_of(data, n), &err) == OK) {
        if (count(root, 0) > YTREE_MAX_NODES + 1) abort();
        ytree_destroy(root);
    } else if (strncmp(err.text, "f:", 2) != 0) {
        abort();
    }
    load_config(data, n);
    return 0;
}
