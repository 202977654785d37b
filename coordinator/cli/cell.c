/* cell.c - counts characters, not bytes. */
#include "coordinator/cli/cell.h"

#include <stdio.h>

size_t cell_width(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void cell_fit(size_t *width, const char *text)
{
    const size_t n = cell_width(text);
    if (n > *width) *width = n;
}

void cell_print(const char *text, size_t width)
{
    const size_t n = cell_width(text);
    printf("%s%*s", text, (int)(n < width ? width - n + 2 : 2), "");
}
