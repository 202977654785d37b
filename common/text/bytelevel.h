/* bytelevel.h - the byte-level alphabet of BPE vocabularies: a visible code point for each byte.
 *
 * Bytes that are printable in Latin-1 stand for themselves; the other 68 take U+0100..U+0143 in order. */
#ifndef TEXT_BYTELEVEL_H
#define TEXT_BYTELEVEL_H
#include <stddef.h>
#include <stdint.h>

/* Writes the character of `byte` as UTF-8 (1 or 2 bytes); returns its length. */
size_t bytelevel_encode(uint8_t byte, char out[2]);
/* The byte that a code point stands for, -1 if it is not of the alphabet. */
int bytelevel_decode(uint32_t cp);
#endif
