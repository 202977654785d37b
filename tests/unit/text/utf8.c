/* utf8: every sequence of three bytes, and what a detokenizer makes of broken ones. */
#include "text/utf8.h"

#include "base/mem.h"
#include "text/detok.h"
#include "text/spans.h"
#include "text/vocab.h"

#include <criterion/criterion.h>
#include <string.h>

static size_t encode(uint32_t cp, uint8_t out[4])
{
    size_t n = cp < 0x80 ? 1 : cp < 0x800 ? 2 : cp < 0x10000 ? 3 : 4;
    static const uint8_t leads[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
    for (size_t i = n; i-- > 1; cp >>= 6) out[i] = (uint8_t)(0x80 | (cp & 0x3F));
    out[0] = (uint8_t)(leads[n] | cp);
    return n;
}

static bool is_scalar(uint32_t cp)
{
    return cp < 0xD800 || (cp > 0xDFFF && cp <= 0x10FFFF);
}

Test(utf8, every_character_is_read_as_it_is_written)
{
    for (uint32_t cp = 0; cp < 0x110000; cp++) {
        uint8_t b[4];
        uint32_t got;
        if (!is_scalar(cp)) continue;
        size_t n = encode(cp, b);
        cr_assert(utf8_check((char *)b, n) == n && utf8_len(b[0]) == n, "%x", cp);
        cr_assert(utf8_next((char *)b, n, &got) == n && got == cp, "%x", cp);
        if (n > 1) cr_assert_eq(utf8_check((char *)b, n - 1), 0, "%x cut short", cp);
    }
    uint32_t got;
    cr_assert_eq(utf8_next("\xE2\x82\xAC", 2, &got), 2, "no further than there are bytes");
}

static uint8_t *known; /* a bit for each triple of bytes that is one character, or two or one with what follows */

static bool is_known(uint32_t triple)
{
    return known[triple / 8] >> (triple % 8) & 1;
}

static void learn(void)
{
    known = mem_zalloc((1 << 24) / 8);
    for (uint32_t cp = 0x80; cp < 0x10000; cp++) {
        uint8_t b[4] = { 0 };
        if (!is_scalar(cp)) continue;
        size_t n = encode(cp, b);
        uint32_t key = (uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | (n == 3 ? b[2] : 0);
        known[key / 8] |= (uint8_t)(1 << key % 8);
    }
}

/* The first byte of three that begins nothing. */
static size_t first_wrong(const uint8_t *b)
{
    size_t i = 0;
    while (i < 3) {
        if (b[i] < 0x80)
            i++;
        else if (i + 2 <= 3 && b[i] < 0xE0 && is_known((uint32_t)b[i] << 16 | (uint32_t)b[i + 1] << 8))
            i += 2;
        else if (i == 0 && b[i] >= 0xE0 && is_known((uint32_t)b[0] << 16 | (uint32_t)b[1] << 8 | b[2]))
            i += 3;
        else
            return i;
    }
    return 3;
}

Test(utf8, every_three_bytes_are_checked)
{
    char in_words[24];
    learn();
    memset(in_words, 'a', sizeof(in_words));
    for (uint32_t t = 0; t < 1 << 24; t++) {
        uint8_t b[3] = { (uint8_t)(t >> 16), (uint8_t)(t >> 8), (uint8_t)t };
        size_t want = first_wrong(b);
        if (utf8_check((char *)b, 3) != want) cr_assert(false, "%06x: %zu, not %zu", t, utf8_check((char *)b, 3), want);
        if (t % 61) continue; /* some of them behind and before whole words of ASCII */
        memcpy(in_words + 9, b, 3);
        size_t got = utf8_check(in_words, sizeof(in_words));
        cr_assert_eq(got, want == 3 ? sizeof(in_words) : 9 + want, "%06x: %zu", t, got);
    }
    mem_free(known);
}

Test(utf8, four_bytes_have_their_bounds)
{
    static const struct {
        const char *text;
        size_t wrong;
    } rows[] = {
        { "\xF0\x90\x80\x80", 4 }, { "\xF0\x8F\xBF\xBF", 0 }, { "\xF4\x8F\xBF\xBF", 4 }, { "\xF4\x90\x80\x80", 0 },
        { "\xF5\x80\x80\x80", 0 }, { "\xF1\x80\x80\xC0", 0 }, { "\xF1\x80\xC0\x80", 0 }, { "\xF1\x7F\x80\x80", 0 },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        cr_assert_eq(utf8_check(rows[i].text, 4), rows[i].wrong, "%zu", i);
}

/* Tokens 0 to 255 are bytes. */
static struct vocab *byte_vocab(void)
{
    static struct vocab_token tokens[256];
    static char texts[256][8];
    static struct vocab v = { .kind = VOCAB_SPM, .n_tokens = 256, .n_ids = 256, .tokens = tokens };
    for (int i = 0; i < 256; i++) {
        snprintf(texts[i], sizeof(texts[i]), "<0x%02X>", i);
        tokens[i] = (struct vocab_token){ texts[i], 6, 0, TOKEN_BYTE };
    }
    return &v;
}

/* As Python's errors="replace" does. */
Test(utf8, what_is_broken_becomes_one_sign_for_each_start_of_a_character)
{
    static const struct {
        const char *bytes, *text;
    } rows[] = {
        { "a\xC3\xA9z", "a\xC3\xA9z" },
        { "\xC3", "?" },
        { "\xC3\x41", "?A" },
        { "\xE2\x82", "?" },
        { "\xE2\x82\x41", "?A" },
        { "\xE2\xC3\xA9", "?\xC3\xA9" },
        { "\x80\xBF", "??" },
        { "\xC0\x80", "??" },
        { "\xC1\xBF", "??" },
        { "\xC2\x80", "\xC2\x80" },
        { "\xE0\x9F\xBF", "???" },
        { "\xE0\xA0\x80", "\xE0\xA0\x80" },
        { "\xED\xA0\x80", "???" },
        { "\xED\x9F\xBF", "\xED\x9F\xBF" },
        { "\xF0\x8F\xBF\xBF", "????" },
        { "\xF0\x90\x80", "?" },
        { "\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF" },
        { "\xF4\x90\x80\x80", "????" },
        { "\xF5\x80", "??" },
        { "\xFF", "?" },
        { "\xF1\x80\x80\x41", "?A" },
    };
    struct vocab *v = byte_vocab();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct strbuf out = STRBUF_INIT, want = STRBUF_INIT;
        struct detok d;
        detok_init(&d, v, true);
        for (const char *p = rows[i].bytes; *p; p++) detok_add(&d, (uint8_t)*p, &out);
        detok_flush(&d, &out);
        detok_flush(&d, &out); /* there is nothing more */
        for (const char *p = rows[i].text; *p; p++)
            if (*p == '?')
                strbuf_puts(&want, "\xEF\xBF\xBD");
            else
                strbuf_putc(&want, *p);
        cr_assert_str_eq(strbuf_cstr(&out), strbuf_cstr(&want), "%zu", i);
        strbuf_fini(&out);
        strbuf_fini(&want);
    }
}

Test(utf8, spans_of_a_text_join_and_are_cut)
{
    struct spans s = { 0 };
    spans_add(&s, 3, 3); /* nothing */
    spans_add(&s, 1, 3);
    spans_add(&s, 3, 5);
    spans_add(&s, 7, 9);
    cr_assert(s.n == 2 && s.v[0].from == 1 && s.v[0].to == 5 && s.v[1].from == 7);
    for (size_t i = 0; i < 40; i++) spans_add(&s, 10 + 2 * i, 11 + 2 * i);
    cr_assert(s.n == 42 && s.v[41].from == 88);
    static const size_t at[][2] = { { 0, 0 }, { 1, 0 }, { 4, 0 },   { 5, 1 },  { 6, 1 },
                                    { 8, 1 }, { 9, 2 }, { 88, 41 }, { 89, 42 } };
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++)
        cr_assert_eq(spans_seek(&s, 0, at[i][0]), at[i][1], "%zu", i);
    cr_assert_eq(spans_seek(&s, 5, 0), 5, "from there on");
    spans_cut(&s, 8);
    cr_assert(s.n == 2 && s.v[1].to == 8);
    spans_cut(&s, 7);
    cr_assert_eq(s.n, 1);
    spans_cut(&s, 5);
    cr_assert(s.n == 1 && s.v[0].to == 5);
    spans_cut(&s, 1);
    cr_assert_eq(s.n, 0);
    spans_cut(&s, 0);
    spans_fini(&s);
}
