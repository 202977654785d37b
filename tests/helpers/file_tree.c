/* file_tree.c - writes the files of a made-up folder and removes them. */
#include "helpers/file_tree.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char tree_root[64];

void tree_make(void)
{
    snprintf(tree_root, sizeof(tree_root), "/tmp/baton-tree-XXXXXX");
    cr_assert(mkdtemp(tree_root));
}

void tree_put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof(full), "%s/%s", tree_root, path);
    for (char *p = full + strlen(tree_root) + 1; (p = strchr(p, '/')); p++) {
        *p = '\0';
        mkdir(full, 0700);
        *p = '/';
    }
    FILE *f = fopen(full, "w");
    cr_assert(f && fputs(text, f) >= 0 && fclose(f) == 0, "%s", full);
}

void tree_remove(void)
{
    char command[96];
    snprintf(command, sizeof(command), "rm -r %s", tree_root);
    cr_assert_eq(system(command), 0);
}
