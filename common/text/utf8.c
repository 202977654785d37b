/* utf8.c - checks and steps through UTF-8 bytes. */
#include "text/utf8.h"

#include "base/utf8.h"

#include <string.h>

size_t utf8_len(uint8_t lead)
{
    if (lead < 0x80) return 1;
    if (lead < 0xe0) return 2;
    return lead < 0xf0 ? 3 : 4;
}

/* The second byte's range depends on the first: this is what shuts out overlong forms (E0, F0),
 * surrogates (ED) and values past U+10FFFF (F4). */
bool utf8_can_follow(const uint8_t *held, size_t n_held, uint8_t b)
{
    if (b < 0x80 || b > 0xbf) return false;
    if (n_held != 1) return true;
    switch (held[0]) {
    case 0xe0: return b >= 0xa0;
    case 0xed: return b <= 0x9f;
    case 0xf0: return b >= 0x90;
    case 0xf4: return b <= 0x8f;
    default: return true;
    }
}

size_t utf8_check(const char *p, size_t n)
{
    const uint8_t *u = (const uint8_t *)p;
    size_t i = 0;

    while (i < n) {
        uint64_t word;
        if (n - i >= sizeof(word)) {
            memcpy(&word, u + i, sizeof(word));
            if ((word & 0x8080808080808080u) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        if (u[i] < 0x80) {
            i++;
            continue;
        }
        size_t len = utf8_seq_len(p + i, n - i);
        if (len == 0) return i;
        i += len;
    }
    return n;
}

size_t utf8_next(const char *p, size_t n, uint32_t *out)
{
    const uint8_t *u = (const uint8_t *)p;
    size_t len = utf8_len(u[0]);
    uint32_t cp = len == 1 ? u[0] : u[0] & (0x7fu >> len);

    if (len > n) len = n;
    for (size_t i = 1; i < len; i++) cp = cp << 6 | (u[i] & 0x3fu);
    *out = cp;
    return len;
}
