/* file_tree.h - a folder of small files, such as a /proc that a test makes up. */
#ifndef HELPERS_FILE_TREE_H
#define HELPERS_FILE_TREE_H

extern char tree_root[64]; /* its path while it is there */

void tree_make(void);
void tree_put(const char *path, const char *text); /* below the root, with the folders it needs */
void tree_remove(void);
#endif
