/* bytelevel.c - the byte-level alphabet of BPE vocabularies: a visible code point for each byte. */
#include "text/bytelevel.h"

/* The bytes that do not stand for themselves, in order, are 00-20, 7F-A0 and AD. */
#define ALPHABET_SHIFTED 0x100u

static uint32_t code_point(uint8_t byte)
{
    if (byte <= 0x20) return ALPHABET_SHIFTED + byte;
    if (byte >= 0x7f && byte <= 0xa0) return ALPHABET_SHIFTED + 0x21 + (byte - 0x7fu);
    if (byte == 0xad) return ALPHABET_SHIFTED + 0x43;
    return byte;
}

size_t bytelevel_encode(uint8_t byte, char out[2])
{
    uint32_t cp = code_point(byte);

    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    out[0] = (char)(0xc0 | cp >> 6);
    out[1] = (char)(0x80 | (cp & 0x3f));
    return 2;
}

int bytelevel_decode(uint32_t cp)
{
    uint32_t shifted = cp - ALPHABET_SHIFTED;

    if (cp < ALPHABET_SHIFTED) return code_point((uint8_t)cp) == cp ? (int)cp : -1;
    if (shifted <= 0x20) return (int)shifted;
    if (shifted <= 0x42) return (int)(shifted - 0x21 + 0x7f);
    return shifted == 0x43 ? 0xad : -1;
}
