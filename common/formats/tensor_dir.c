/* tensor_dir.c - finds a tensor by its name. */
#include "formats/tensor_dir.h"

#include <string.h>

const struct tensor_entry *tensor_dir_find(const struct tensor_dir *dir, const char *name)
{
    for (size_t i = 0; i < dir->n; i++)
        if (strcmp(dir->entries[i].name, name) == 0) return &dir->entries[i];
    return NULL;
}
