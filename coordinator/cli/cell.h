/* cell.h - cells of printed tables, which stay aligned whatever names are in them. */
#ifndef CLI_CELL_H
#define CLI_CELL_H
#include <stddef.h>

/* Characters of a UTF-8 text. */
size_t cell_width(const char *text);
/* Raises *width to what `text` needs. */
void cell_fit(size_t *width, const char *text);
/* Prints `text` on standard output, filled up to `width` characters, and two blanks. */
void cell_print(const char *text, size_t width);
#endif
