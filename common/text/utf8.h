/* utf8.h - checks and steps through UTF-8 bytes. */
#ifndef TEXT_UTF8_H
#define TEXT_UTF8_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Offset of the first byte that starts no valid sequence; n when all is valid.  Strict: overlong forms,
 * surrogates and values above U+10FFFF are invalid. */
size_t utf8_check(const char *p, size_t n);
/* Bytes of the sequence that begins with `lead`; valid text only. */
size_t utf8_len(uint8_t lead);
/* Decodes one code point of valid text (n > 0), stores it and returns its bytes. */
size_t utf8_next(const char *p, size_t n, uint32_t *out);
/* Whether `b` may follow the n_held (1..3) bytes of an incomplete sequence. */
bool utf8_can_follow(const uint8_t *held, size_t n_held, uint8_t b);
#endif
