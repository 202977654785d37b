/* yaml.h - a YAML file as a bounded tree in which every node knows its line.
 *
 * One document of maps, lists and scalars.  Anchors, aliases, tags, merge keys and doubled keys are
 * refused: what a file says has to be readable from its text alone. */
#ifndef CONFIG_YAML_H
#define CONFIG_YAML_H
#include "base/bytes.h"
#include "base/error.h"

#include <stdint.h>

#define YTREE_MAX_FILE_BYTES   (1u << 20)
#define YTREE_MAX_DEPTH        16
#define YTREE_MAX_NODES        20000
#define YTREE_MAX_SCALAR_BYTES 4096

enum ynode_kind { YNODE_SCALAR, YNODE_LIST, YNODE_MAP };

struct ynode {
    enum ynode_kind kind;
    uint32_t line;
    char *key;    /* in a map; NULL elsewhere */
    char *text;   /* scalar, never NULL for one */
    bool is_null; /* scalar: nothing, "~" or null, without quotes */
    uint32_t n_children;
    struct ynode *first, *last, *next;
};

/* Parses one document; an empty one gives a map without children.  `name` stands in messages, "name:line: ...".
 * The caller owns the tree and gives it to ytree_destroy(). */
enum status ytree_parse(struct ynode **out, const char *name, struct bytes text, struct error *err) MUST_CHECK;
enum status ytree_load(struct ynode **out, const char *path, struct error *err) MUST_CHECK;
void ytree_destroy(struct ynode *root);
#endif
