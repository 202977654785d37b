/* token_map.h - from a token's text to its id.
 *
 * Holds only tokens that plain text may become: control, unknown and byte tokens are left out, so that
 * no spelling of them in a prompt can produce one. */
#ifndef TEXT_TOKEN_MAP_H
#define TEXT_TOKEN_MAP_H
#include <stddef.h>
#include <stdint.h>

struct vocab;
struct token_map;

/* Borrows `v` for the map's life.  Of two tokens with one text the lower id counts. */
struct token_map *token_map_create(const struct vocab *v);
void token_map_destroy(struct token_map *m);
int32_t token_map_find(const struct token_map *m, const char *text, size_t n); /* or TOKEN_NONE */
size_t token_map_longest(const struct token_map *m);                           /* bytes of the longest text */
#endif
