/* gguf: the last value that is let in and the first that is refused, of lengths, counts, numbers and places. */
#include "base/mem.h"
#include "compute/dtype.h"
#include "formats/gguf_parse.h"
#include "helpers/gguf_build.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static enum status open_built(struct gguf_build *b, struct gguf **g, struct error *err)
{
    size_t n;
    uint8_t *file = gguf_build_finish(b, &n); /* freed with the process: the file is read in place */
    *g = NULL;
    return gguf_open_bytes(g, bytes_of(file, n), err);
}

static char *name_of(size_t n)
{
    char *name = mem_alloc(n + 1);
    memset(name, 'k', n);
    name[n] = '\0';
    return name;
}

Test(gguf_bounds, names_have_a_length)
{
    static const struct {
        bool is_tensor;
        size_t n;
        const char *says; /* NULL: fine */
    } rows[] = {
        { false, 1, NULL },
        { false, GGUF_MAX_KEY, NULL },
        { false, GGUF_MAX_KEY + 1, "metadata key at byte 24 has 65536 bytes, expected 1 to 65535" },
        { true, 1, NULL },
        { true, GGUF_MAX_NAME, NULL },
        { true, GGUF_MAX_NAME + 1, "expected 1 to" },
        { true, 0, "tensor name at byte 24 has 0 bytes" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gguf_build b;
        struct gguf *g;
        struct error err = { OK, "" };
        char *name = name_of(rows[i].n);
        gguf_build_init(&b, 3);
        if (rows[i].is_tensor)
            gguf_build_tensor(&b, name, DTYPE_F32, 1, (const uint64_t[]){ 1 }, NULL, 4);
        else
            gguf_build_u32(&b, name, 1);
        cr_assert_eq(open_built(&b, &g, &err), rows[i].says ? ERR_PARSE : OK, "row %zu: %s", i, err.text);
        if (rows[i].says) cr_assert(strstr(err.text, rows[i].says), "%s", err.text);
        gguf_close(g);
        mem_free(name);
    }
}

Test(gguf_bounds, names_are_shown_without_what_a_terminal_obeys)
{
    static const struct {
        const char *name, *shown;
    } rows[] = { { "plain ~", "plain ~" },
                 { "a\x1f"
                   "b\x7f\x80\xff",
                   "a?b???" },
                 { "", "" } };
    const size_t most = sizeof((struct gguf_shown){ { 0 } }.s) - 4;
    for (size_t i = 0; i < COUNT(rows); i++)
        cr_assert_str_eq(gguf_show(bytes_of(rows[i].name, strlen(rows[i].name))).s, rows[i].shown);
    for (size_t n = most - 2; n < most + 5; n++) {
        char *name = name_of(n);
        const struct gguf_shown s = gguf_show(bytes_of(name, n));
        cr_assert_eq(strlen(s.s), n <= most ? n : most + 3);
        cr_assert_eq(strstr(s.s, "...") != NULL, n > most);
        mem_free(name);
    }
}

Test(gguf_bounds, nul_bytes_are_in_no_name)
{
    struct gguf_build b;
    struct gguf *g;
    struct error err;
    size_t n;
    for (int tensor = 0; tensor <= 1; tensor++) {
        gguf_build_init(&b, 3);
        if (tensor)
            gguf_build_tensor(&b, "name", DTYPE_F32, 1, (const uint64_t[]){ 1 }, NULL, 4);
        else
            gguf_build_u32(&b, "name", 1);
        uint8_t *file = gguf_build_finish(&b, &n);
        file[24 + 8 + 2] = '\0'; /* behind the header, and the name's length */
        cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, n), &err), ERR_PARSE);
        cr_assert(
            strstr(err.text, tensor ? "tensor name at byte 24 holds a NUL" : "metadata key at byte 24 holds a NUL"),
            "%s", err.text);
        mem_free(file);
    }
}

/* A count is believed if that many of the shortest entries could follow: 14 bytes a key, 33 a tensor. */
Test(gguf_bounds, counts_are_bounded_by_what_follows)
{
    static const struct {
        uint64_t n_tensors, n_kv;
        size_t bytes; /* behind the header */
        const char *says;
    } rows[] = {
        { 0, 2, 27, "metadata count at byte 16 is 2, but the 27 bytes after it hold at most 1" },
        { 0, 2, 28, "metadata key at byte 24 has 0 bytes" },
        { 2, 0, 65, "tensor count at byte 8 is 2, but the 65 bytes after it hold at most 1" },
        { 2, 0, 66, "tensor name at byte 24 has 0 bytes" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t file[128] = { 'G', 'G', 'U', 'F', 3 };
        struct gguf *g = NULL;
        struct error err = { OK, "" };
        memcpy(file + 8, &rows[i].n_tensors, 8);
        memcpy(file + 16, &rows[i].n_kv, 8);
        cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, 24 + rows[i].bytes), &err), ERR_PARSE);
        cr_assert(strstr(err.text, rows[i].says), "'%s' is not '%s'", err.text, rows[i].says);
    }
}

/* Arrays whose elements take at least so many bytes, in a file that ends one byte too early, and in one that does not.
 */
Test(gguf_bounds, elements_have_their_sizes)
{
    static const uint8_t sizes[GGUF_TYPE_COUNT] = { 1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8 };
    for (uint32_t type = 0; type < GGUF_TYPE_COUNT; type++)
        for (int missing = 0; missing <= 1; missing++) {
            uint8_t value[12 + 3 * 12] = { (uint8_t)type, 0, 0, 0, 3 };
            struct gguf_build b;
            struct gguf *g;
            struct error err = { OK, "" };
            gguf_build_init(&b, 3);
            gguf_build_raw(&b, "k", GGUF_ARRAY, value, 12 + 3u * sizes[type] - (size_t)missing);
            cr_assert_eq(open_built(&b, &g, &err), missing ? ERR_PARSE : OK, "type %u: %s", type, err.text);
            if (missing) cr_assert(strstr(err.text, "3 elements of type "), "%s", err.text);
            gguf_close(g);
        }
}

Test(gguf_bounds, a_cut_says_where_and_what_is_left)
{
    static const struct {
        uint32_t type;
        size_t n;
        const char *says;
    } rows[] = {
        { GGUF_U32, 3, "u32 at byte 37 needs 4 bytes, the file has 3 left" },
        { GGUF_U64, 7, "u64 at byte 37 needs 8 bytes, the file has 7 left" },
        { GGUF_STRING, 7, "string at byte 37 needs 8 bytes, the file has 7 left" },
        { GGUF_STRING, 12, "string at byte 45 needs 5 bytes, the file has 4 left" },
        { GGUF_ARRAY, 3, "array's element type at byte 37 needs 4 bytes, the file has 3 left" },
        { GGUF_ARRAY, 11, "array's count at byte 41 needs 8 bytes, the file has 7 left" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        const uint8_t value[12] = { rows[i].type == GGUF_STRING ? 5 : 0 };
        struct gguf_build b;
        struct gguf *g;
        struct error err = { OK, "" };
        gguf_build_init(&b, 3);
        gguf_build_raw(&b, "k", rows[i].type, value, rows[i].n);
        cr_assert_eq(open_built(&b, &g, &err), ERR_PARSE);
        cr_assert(strstr(err.text, "metadata key 'k': ") && strstr(err.text, rows[i].says), "'%s' is not '%s'",
                  err.text, rows[i].says);
    }
}

static struct gguf *with(uint32_t type, const void *value, size_t n)
{
    struct gguf_build b;
    struct gguf *g;
    struct error err = { OK, "" };
    gguf_build_init(&b, 3);
    gguf_build_raw(&b, "k", type, value, n);
    cr_assert_eq(open_built(&b, &g, &err), OK, "%s", err.text);
    return g;
}

Test(gguf_bounds, integers_of_every_width_are_read_to_their_ends)
{
    static const struct {
        uint32_t type;
        size_t n;
        uint64_t bits;
        bool fits; /* an u32 */
        float f;
    } rows[] = {
        { GGUF_U8, 1, 0xff, true, 255 },
        { GGUF_I8, 1, 0x7f, true, 127 },
        { GGUF_I8, 1, 0x80, false, -128 },
        { GGUF_U16, 2, 0xffff, true, 65535 },
        { GGUF_I16, 2, 0x7fff, true, 32767 },
        { GGUF_I16, 2, 0xffff, false, -1 },
        { GGUF_U32, 4, UINT32_MAX, true, 4294967295.0f },
        { GGUF_I32, 4, 0x80000000, false, -2147483648.0f },
        { GGUF_U64, 8, UINT32_MAX, true, 4294967295.0f },
        { GGUF_U64, 8, 1ull << 32, false, 4294967296.0f },
        { GGUF_I64, 8, UINT32_MAX, true, 4294967295.0f },
        { GGUF_I64, 8, 1ull << 63, false, -9223372036854775808.0f },
        { GGUF_U64, 8, 1ull << 63, false, 9223372036854775808.0f },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gguf *g = with(rows[i].type, &rows[i].bits, rows[i].n);
        uint32_t u = 7;
        float f = 0;
        bool flag = false;
        cr_assert_eq(gguf_get_u32(g, "k", &u, NULL) == OK, rows[i].fits, "row %zu", i);
        cr_assert_eq(u, rows[i].fits ? (uint32_t)rows[i].bits : 7);
        cr_assert(gguf_get_f32(g, "k", &f, NULL) == OK && f == rows[i].f, "row %zu: %g", i, (double)f);
        cr_assert_eq(gguf_get_bool(g, "k", &flag, NULL), ERR_PARSE);
        gguf_close(g);
    }
}

Test(gguf_bounds, flags_are_bools_or_integers_of_0_or_1)
{
    for (uint8_t v = 0; v <= 2; v++) {
        struct gguf *g = with(GGUF_I16, (const uint8_t[]){ v, 0 }, 2);
        bool flag = v == 0;
        cr_assert_eq(gguf_get_bool(g, "k", &flag, NULL), v <= 1 ? OK : ERR_PARSE);
        if (v <= 1) cr_assert_eq(flag, v == 1);
        gguf_close(g);
    }
    struct gguf *g = with(GGUF_BOOL, "\x01", 1);
    float f;
    uint32_t u;
    struct error err;
    cr_assert_eq(gguf_get_f32(g, "k", &f, &err), ERR_PARSE);
    cr_assert(strstr(err.text, "'k' at byte 37 is of type bool, expected a number"), "%s", err.text);
    cr_assert_eq(gguf_get_u32(g, "k", &u, &err), ERR_PARSE);
    cr_assert(strstr(err.text, "expected an integer"), "%s", err.text);
    gguf_close(g);
}

Test(gguf_bounds, elements_are_read_to_their_ends)
{
    static const struct {
        uint8_t type, n;
        uint64_t bits;
        bool fits;
        int64_t i;
    } rows[] = {
        { GGUF_U64, 8, INT64_MAX, true, INT64_MAX },
        { GGUF_U64, 8, 1ull << 63, false, 0 },
        { GGUF_I64, 8, 1ull << 63, true, INT64_MIN },
        { GGUF_I64, 8, UINT64_MAX, true, -1 },
        { GGUF_I8, 1, 0x80, true, -128 },
        { GGUF_BOOL, 1, 1, true, 1 },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t value[20] = { rows[i].type, 0, 0, 0, 1 };
        int64_t got = 5;
        double f;
        memcpy(value + 12, &rows[i].bits, 8);
        struct gguf *g = with(GGUF_ARRAY, value, 12u + rows[i].n);
        const struct gguf_kv *kv = gguf_find(g, "k");
        cr_assert_eq(gguf_array_i64(kv, 0, &got), rows[i].fits, "row %zu", i);
        if (rows[i].fits) cr_assert_eq(got, rows[i].i);
        cr_assert_not(gguf_array_i64(kv, 1, &got));
        cr_assert_eq(gguf_array_f64(kv, 0, &f), rows[i].type != GGUF_BOOL);
        gguf_close(g);
    }
    struct gguf *g = with(GGUF_U8, "\x01", 1);
    int64_t got;
    cr_assert_not(gguf_array_i64(gguf_find(g, "k"), 0, &got), "no array");
    gguf_close(g);
}

/* A tensor's sample is the 4096 bytes in its middle; a shorter one is seen whole. */
Test(gguf_bounds, the_fingerprint_sees_the_middle_of_a_tensor)
{
    static uint8_t bytes[10000];
    struct gguf_build b;
    struct gguf *g = NULL;
    size_t n;
    gguf_build_init(&b, 3);
    gguf_build_tensor(&b, "a", DTYPE_I8, 1, (const uint64_t[]){ sizeof(bytes) }, bytes, sizeof(bytes));
    gguf_build_tensor(&b, "b", DTYPE_I8, 1, (const uint64_t[]){ 4096 }, bytes, 4096);
    uint8_t *file = gguf_build_finish(&b, &n);
    cr_assert_eq(gguf_open_bytes(&g, bytes_of(file, n), NULL), OK);
    const uint64_t hash = gguf_fingerprint(g);
    static const struct {
        int tensor;
        size_t at;
        bool seen;
    } rows[] = { { 0, 0, false },    { 0, 2951, false }, { 0, 2952, true }, { 0, 5000, true }, { 0, 7047, true },
                 { 0, 7048, false }, { 0, 9999, false }, { 1, 0, true },    { 1, 4095, true } };
    for (size_t i = 0; i < COUNT(rows); i++) {
        uint8_t *at = file + gguf_tensors(g)->entries[rows[i].tensor].offset + rows[i].at;
        *at ^= 1;
        cr_assert_eq(gguf_fingerprint(g) != hash, rows[i].seen, "row %zu", i);
        *at ^= 1;
    }
    gguf_close(g);
    mem_free(file);
}

Test(gguf_bounds, tensors_lie_inside_the_file_at_their_alignment)
{
    static const struct {
        uint64_t elems;
        size_t bytes;
        const char *says;
    } rows[] = {
        { 8, 32, NULL },
        { 9, 32, "36 bytes from byte 64 on, but the file ends at byte 96" },
        { (uint64_t)1 << 61, 32, "'t': 9223372036854775808 bytes from byte 64 on" },
        { ((uint64_t)1 << 63) - 1, 32, "its size in bytes does not fit into 64 bits" },
        { (uint64_t)1 << 63, 32, "dimension 0 at byte 37 is 9223372036854775808: too many elements" },
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct gguf_build b;
        struct gguf *g;
        struct error err = { OK, "" };
        gguf_build_init(&b, 3);
        gguf_build_tensor(&b, "t", DTYPE_F32, 1, &rows[i].elems, NULL, rows[i].bytes);
        cr_assert_eq(open_built(&b, &g, &err), rows[i].says ? ERR_PARSE : OK, "row %zu: %s", i, err.text);
        if (rows[i].says) cr_assert(strstr(err.text, rows[i].says), "'%s' is not '%s'", err.text, rows[i].says);
        gguf_close(g);
    }
}
