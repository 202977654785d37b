/* gguf: sound files are read as written, unsound ones are refused with what, where and what was expected. */
#include "formats/gguf.h"

#include "base/mem.h"
#include "compute/dtype.h"
#include "helpers/gguf_build.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const uint64_t SHAPE_4X2[] = { 4, 2 };
static const float EIGHT[8] = { 0, 1, 2, 3, 4, 5, 6, 7 };

/* A file with every kind of value and two tensors. */
static uint8_t *sound_file(uint32_t version, size_t *n)
{
    struct gguf_build b;
    gguf_build_init(&b, version);
    gguf_build_str(&b, "general.architecture", "llama");
    gguf_build_raw(&b, "t.u8", GGUF_U8, "\xff", 1);
    gguf_build_raw(&b, "t.i8", GGUF_I8, "\xff", 1);
    gguf_build_raw(&b, "t.u16", GGUF_U16, "\x01\x80", 2);
    gguf_build_raw(&b, "t.i16", GGUF_I16, "\x01\x80", 2);
    gguf_build_u32(&b, "t.u32", 4000000000u);
    gguf_build_i32(&b, "t.i32", -7);
    gguf_build_u64(&b, "t.u64", 1ull << 40);
    gguf_build_raw(&b, "t.i64", GGUF_I64, "\xfe\xff\xff\xff\xff\xff\xff\xff", 8);
    gguf_build_f32(&b, "t.f32", 1.5f);
    gguf_build_raw(&b, "t.f64", GGUF_F64, &(double){ -0.25 }, 8);
    gguf_build_bool(&b, "t.bool", true);
    gguf_build_strs(&b, "t.strs", (const char *const[]){ "one", "", "three" }, 3);
    gguf_build_i32s(&b, "t.i32s", (const int32_t[]){ -1, 2 }, 2);
    gguf_build_f32s(&b, "t.f32s", (const float[]){ 0.5f }, 1);
    /* [[1, 2], ["x"]] */
    gguf_build_raw(&b, "t.nested", GGUF_ARRAY,
                   "\x09\0\0\0\x02\0\0\0\0\0\0\0"
                   "\0\0\0\0\x02\0\0\0\0\0\0\0\x01\x02"
                   "\x08\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0x",
                   47);
    gguf_build_tensor(&b, "a.weight", DTYPE_F32, 2, SHAPE_4X2, EIGHT, 32);
    gguf_build_tensor(&b, "b.weight", 16, 1, (const uint64_t[]){ 256 }, NULL, 66); /* IQ2_XXS */
    return gguf_build_finish(&b, n);
}

static struct gguf *open_ok(const uint8_t *file, size_t n)
{
    struct gguf *g = NULL;
    struct error err = { 0 };
    enum status st = gguf_open_bytes(&g, bytes_of(file, n), &err);
    cr_assert(st == OK, "%s", err.text);
    return g;
}

static void expect_refused_bytes(const uint8_t *file, size_t n, enum status want, const char *text)
{
    struct gguf *g = NULL;
    struct error err = { 0 };
    enum status st = gguf_open_bytes(&g, bytes_of(file, n), &err);
    cr_assert(g == NULL && st == want, "expected '%s', got status %d '%s'", text, st, err.text);
    cr_assert(strstr(err.text, text), "expected '%s', got '%s'", text, err.text);
}

static void expect_refused(struct gguf_build *b, enum status want, const char *text)
{
    size_t n;
    uint8_t *file = gguf_build_finish(b, &n);
    expect_refused_bytes(file, n, want, text);
    mem_free(file);
}

Test(gguf, reads_both_versions_and_every_scalar)
{
    for (uint32_t version = 2; version <= 3; version++) {
        size_t n;
        uint8_t *file = sound_file(version, &n);
        struct gguf *g = open_ok(file, n);
        uint32_t u;
        float f;
        bool flag;
        struct bytes s;
        cr_assert_eq(gguf_version(g), version);
        cr_assert_eq(gguf_n_kv(g), 16);
        cr_assert(gguf_get_u32(g, "t.u8", &u, NULL) == OK && u == 255);
        cr_assert(gguf_get_u32(g, "t.u16", &u, NULL) == OK && u == 0x8001);
        cr_assert(gguf_get_u32(g, "t.u32", &u, NULL) == OK && u == 4000000000u);
        cr_assert(gguf_get_f32(g, "t.f32", &f, NULL) == OK && f == 1.5f);
        cr_assert(gguf_get_f32(g, "t.f64", &f, NULL) == OK && f == -0.25f);
        cr_assert(gguf_get_f32(g, "t.i16", &f, NULL) == OK && f == -32767.0f);
        cr_assert(gguf_get_f32(g, "t.i64", &f, NULL) == OK && f == -2.0f);
        cr_assert(gguf_get_bool(g, "t.bool", &flag, NULL) == OK && flag);
        cr_assert(gguf_get_str(g, "general.architecture", &s, NULL) == OK);
        cr_assert(bytes_eq(s, "llama", 5));
        gguf_close(g);
        mem_free(file);
    }
}

Test(gguf, typed_reads_name_key_type_and_range)
{
    size_t n;
    uint8_t *file = sound_file(3, &n);
    struct gguf *g = open_ok(file, n);
    struct error err;
    uint32_t u;
    bool flag;
    struct bytes s;
    cr_assert_eq(gguf_get_u32(g, "t.absent", &u, &err), ERR_NOT_FOUND);
    cr_assert(strstr(err.text, "t.absent"));
    cr_assert_eq(gguf_get_u32(g, "t.i8", &u, &err), ERR_PARSE);
    cr_assert(strstr(err.text, "is -1, expected 0 to 4294967295"), "%s", err.text);
    cr_assert_eq(gguf_get_u32(g, "t.u64", &u, &err), ERR_PARSE);
    cr_assert_eq(gguf_get_u32(g, "t.f32", &u, &err), ERR_PARSE);
    cr_assert(strstr(err.text, "of type f32, expected an integer"), "%s", err.text);
    cr_assert_eq(gguf_get_u32(g, "t.strs", &u, &err), ERR_PARSE);
    cr_assert_eq(gguf_get_bool(g, "t.i32", &flag, &err), ERR_PARSE);
    cr_assert_eq(gguf_get_str(g, "t.u8", &s, &err), ERR_PARSE);
    gguf_close(g);
    mem_free(file);
}

Test(gguf, walks_arrays)
{
    size_t n;
    uint8_t *file = sound_file(3, &n);
    struct gguf *g = open_ok(file, n);
    struct gguf_str_iter it = { 0 };
    struct bytes s;
    double f;
    int64_t i;
    const struct gguf_kv *strs = gguf_find(g, "t.strs"), *ints = gguf_find(g, "t.i32s");
    cr_assert(gguf_array_next_str(strs, &it, &s) && bytes_eq(s, "one", 3));
    cr_assert(gguf_array_next_str(strs, &it, &s) && s.n == 0);
    cr_assert(gguf_array_next_str(strs, &it, &s) && bytes_eq(s, "three", 5));
    cr_assert_not(gguf_array_next_str(strs, &it, &s));
    cr_assert(gguf_array_i64(ints, 0, &i) && i == -1);
    cr_assert(gguf_array_f64(ints, 1, &f) && f == 2.0);
    cr_assert_not(gguf_array_i64(ints, 2, &i));
    cr_assert_not(gguf_array_i64(strs, 0, &i));
    cr_assert_not(gguf_array_i64(gguf_find(g, "t.f32s"), 0, &i));
    cr_assert(gguf_array_f64(gguf_find(g, "t.f32s"), 0, &f) && f == 0.5);
    const struct gguf_kv *nested = gguf_find(g, "t.nested");
    cr_assert(nested->elem_type == GGUF_ARRAY && nested->n == 2 && nested->value.n == 35);
    gguf_close(g);
    mem_free(file);
}

Test(gguf, gives_tensors_with_their_bytes)
{
    size_t n;
    uint8_t *file = sound_file(3, &n);
    struct gguf *g = open_ok(file, n);
    const struct tensor_entry *a = tensor_dir_find(gguf_tensors(g), "a.weight");
    const struct tensor_entry *b = tensor_dir_find(gguf_tensors(g), "b.weight");
    cr_assert(a && a->n_dims == 2 && a->ne[0] == 4 && a->ne[1] == 2 && a->ne[2] == 1);
    cr_assert(a->offset % 32 == 0 && bytes_eq(gguf_tensor_bytes(g, a), EIGHT, 32));
    cr_assert(b && b->type == 16 && b->bytes == 66); /* known, not supported: the file still opens */
    cr_assert_null(tensor_dir_find(gguf_tensors(g), "c.weight"));
    cr_assert(!gguf_fds(g) && gguf_n_parts(g) == 1 && gguf_part(g, 0).n == n);
    gguf_close(g);
    mem_free(file);
}

Test(gguf, honours_alignment)
{
    for (uint32_t alignment = 8; alignment <= 4096; alignment *= 8) {
        struct gguf_build b;
        size_t n;
        gguf_build_init(&b, 3);
        gguf_build_alignment(&b, alignment);
        gguf_build_tensor(&b, "a", DTYPE_F32, 1, (const uint64_t[]){ 1 }, EIGHT, 4);
        gguf_build_tensor(&b, "b", DTYPE_F32, 2, SHAPE_4X2, EIGHT, 32);
        uint8_t *file = gguf_build_finish(&b, &n);
        struct gguf *g = open_ok(file, n);
        const struct tensor_entry *t = tensor_dir_find(gguf_tensors(g), "b");
        cr_assert(t->offset % alignment == 0 && bytes_eq(gguf_tensor_bytes(g, t), EIGHT, 32));
        gguf_close(g);
        mem_free(file);
    }
}

/* The prefixes are copies of their exact size, so that a sanitizer sees a read past the end. */
Test(gguf, refuses_every_truncation)
{
    size_t n;
    uint8_t *file = sound_file(3, &n);
    for (size_t cut = 0; cut < n; cut++) {
        uint8_t *part = mem_alloc(cut);
        struct gguf *g = NULL;
        struct error err = { 0 };
        memcpy(part, file, cut);
        enum status st = gguf_open_bytes(&g, bytes_of(part, cut), &err);
        cr_assert(st != OK && err.text[0] != '\0', "cut at %zu of %zu", cut, n);
        mem_free(part);
    }
    mem_free(file);
}

/* Every byte of the tables set to extreme values: opened or refused, never worse. */
Test(gguf, survives_every_damaged_byte)
{
    static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
    size_t n;
    uint8_t *file = sound_file(3, &n), *copy = mem_alloc(n);
    for (size_t at = 0; at < n; at++) {
        for (size_t k = 0; k < sizeof(values); k++) {
            struct gguf *g = NULL;
            memcpy(copy, file, n);
            copy[at] = values[k];
            if (gguf_open_bytes(&g, bytes_of(copy, n), NULL) != OK) continue;
            gguf_fingerprint(g);
            gguf_close(g);
        }
    }
    mem_free(copy);
    mem_free(file);
}

Test(gguf, refuses_wrong_magic_and_versions)
{
    struct gguf_build b;
    expect_refused_bytes((const uint8_t *)"GGML....", 8, ERR_PARSE, "not a GGUF file");
    expect_refused_bytes((const uint8_t *)"", 0, ERR_PARSE, "not a GGUF file");
    gguf_build_init(&b, 1);
    expect_refused(&b, ERR_UNSUPPORTED, "version at byte 4 is 1, expected 2 or 3");
    gguf_build_init(&b, 4);
    expect_refused(&b, ERR_UNSUPPORTED, "is 4, expected 2 or 3");
    gguf_build_init(&b, 0x03000000);
    expect_refused(&b, ERR_UNSUPPORTED, "big-endian GGUF file (version 3)");
}

Test(gguf, refuses_counts_that_cannot_fit)
{
    struct gguf_build b;
    gguf_build_init(&b, 3);
    b.n_tensors = UINT64_MAX;
    expect_refused(&b, ERR_PARSE, "tensor count at byte 8 is 18446744073709551615");
    gguf_build_init(&b, 3);
    b.n_kv = 1ull << 61;
    expect_refused(&b, ERR_PARSE, "metadata count at byte 16");
    gguf_build_init(&b, 3); /* 2^61 elements of 8 bytes would wrap to 0 */
    gguf_build_raw(&b, "k", GGUF_ARRAY, "\x0a\0\0\0\0\0\0\0\0\0\0\x20", 12);
    expect_refused(&b, ERR_PARSE, "elements of type u64 cannot fit");
    gguf_build_init(&b, 3);
    gguf_build_raw(&b, "k", GGUF_STRING, "\xff\xff\xff\xff\xff\xff\xff\xff", 8);
    expect_refused(&b, ERR_PARSE, "metadata key 'k': string at byte");
}

Test(gguf, refuses_unsound_metadata)
{
    struct gguf_build b;
    gguf_build_init(&b, 3);
    gguf_build_u32(&b, "same", 1);
    gguf_build_u32(&b, "other", 1);
    gguf_build_u32(&b, "same", 2);
    expect_refused(&b, ERR_PARSE, "'same' at byte ");
    gguf_build_init(&b, 3);
    gguf_build_u32(&b, "", 1);
    expect_refused(&b, ERR_PARSE, "has 0 bytes, expected 1 to 65535");
    gguf_build_init(&b, 3);
    gguf_build_raw(&b, "k", 13, "\0\0\0\0\0\0\0\0", 8);
    expect_refused(&b, ERR_PARSE, "value's type at byte 33 is 13, expected 0 to 12");
    gguf_build_init(&b, 3);
    gguf_build_raw(&b, "k", GGUF_BOOL, "\x02", 1);
    expect_refused(&b, ERR_PARSE, "bool at byte 37 is 2, expected 0 or 1");
    gguf_build_init(&b, 3);
    gguf_build_raw(&b, "k", GGUF_ARRAY, "\x0d\0\0\0\0\0\0\0\0\0\0\0", 12);
    expect_refused(&b, ERR_PARSE, "array's element type at byte 37 is 13");
}

Test(gguf, bounds_nesting_of_arrays)
{
    for (unsigned depth = 1; depth <= 40; depth++) {
        struct gguf_build b;
        struct strbuf v = STRBUF_INIT;
        for (unsigned i = 1; i < depth; i++) strbuf_add(&v, "\x09\0\0\0\x01\0\0\0\0\0\0\0", 12);
        strbuf_add(&v, "\0\0\0\0\x01\0\0\0\0\0\0\0\x05", 13);
        gguf_build_init(&b, 3);
        gguf_build_raw(&b, "k", GGUF_ARRAY, v.s, v.n);
        strbuf_fini(&v);
        if (depth > 8) {
            expect_refused(&b, ERR_PARSE, "nested more than 8 deep");
        } else {
            size_t n;
            uint8_t *file = gguf_build_finish(&b, &n);
            gguf_close(open_ok(file, n));
            mem_free(file);
        }
    }
}

Test(gguf, refuses_unsound_alignment)
{
    const uint32_t wrong[] = { 0, 1, 4, 12, 33, UINT32_MAX };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct gguf_build b;
        gguf_build_init(&b, 3);
        gguf_build_u32(&b, "general.alignment", wrong[i]);
        expect_refused(&b, ERR_PARSE, "expected a power of two");
    }
    struct gguf_build b;
    gguf_build_init(&b, 3);
    gguf_build_str(&b, "general.alignment", "32");
    expect_refused(&b, ERR_PARSE, "is of type string, expected an integer");
    gguf_build_init(&b, 3); /* written for 8, read as 32 */
    gguf_build_tensor(&b, "a", DTYPE_F32, 1, (const uint64_t[]){ 1 }, EIGHT, 4);
    b.alignment = 8;
    gguf_build_tensor(&b, "b", DTYPE_F32, 1, (const uint64_t[]){ 1 }, EIGHT, 4);
    expect_refused(&b, ERR_PARSE, "tensor 'b': offset 8 at byte");
}

static void expect_tensor_refused(uint32_t type, uint32_t n_dims, const uint64_t *ne, size_t bytes, enum status want,
                                  const char *text)
{
    struct gguf_build b;
    gguf_build_init(&b, 3);
    gguf_build_tensor(&b, "blk.0", type, n_dims, ne, NULL, bytes);
    expect_refused(&b, want, text);
}

Test(gguf, refuses_unsound_tensors)
{
    const uint64_t five[] = { 1, 1, 1, 1, 1 }, zero[] = { 4, 0 }, odd[] = { 33 };
    const uint64_t huge[] = { 1ull << 32, 1ull << 32 }, wide[] = { 1ull << 62 };
    expect_tensor_refused(DTYPE_F32, 5, five, 4, ERR_PARSE, "'blk.0': 5 dimensions at byte");
    expect_tensor_refused(DTYPE_F32, 0, five, 4, ERR_PARSE, "0 dimensions");
    expect_tensor_refused(DTYPE_F32, 2, zero, 0, ERR_PARSE, "dimension 1 at byte");
    expect_tensor_refused(DTYPE_F32, 2, huge, 4, ERR_PARSE, "too many elements");
    expect_tensor_refused(28, 1, wide, 4, ERR_PARSE, "does not fit into 64 bits");
    expect_tensor_refused(DTYPE_Q4_0, 1, odd, 18, ERR_PARSE, "multiple of Q4_0's block of 32");
    expect_tensor_refused(4, 1, five, 4, ERR_UNSUPPORTED, "'blk.0': type number 4 at byte");
    expect_tensor_refused(99, 1, five, 4, ERR_UNSUPPORTED, "type number 99");
    expect_tensor_refused(DTYPE_F32, 2, SHAPE_4X2, 31, ERR_PARSE, "32 bytes from byte");
}

Test(gguf, refuses_tensors_that_clash)
{
    struct gguf_build b;
    gguf_build_init(&b, 3);
    gguf_build_tensor(&b, "a", DTYPE_F32, 1, (const uint64_t[]){ 1 }, EIGHT, 4);
    gguf_build_tensor(&b, "a", DTYPE_F32, 1, (const uint64_t[]){ 1 }, EIGHT, 4);
    expect_refused(&b, ERR_PARSE, "tensor 'a' occurs twice");
    gguf_build_init(&b, 3); /* 'a' says 32 elements, 'b' lies 32 bytes on */
    gguf_build_tensor(&b, "a", DTYPE_F32, 1, (const uint64_t[]){ 32 }, EIGHT, 4);
    gguf_build_tensor(&b, "b", DTYPE_F32, 1, (const uint64_t[]){ 32 }, NULL, 128);
    expect_refused(&b, ERR_PARSE, "tensors 'a' and 'b' overlap");
    gguf_build_init(&b, 3);
    gguf_build_tensor(&b, "bad\nname", DTYPE_F32, 0, SHAPE_4X2, EIGHT, 4);
    expect_refused(&b, ERR_PARSE, "tensor 'bad?name'");
}

Test(gguf, fingerprint_sees_metadata_shape_and_contents)
{
    size_t n;
    uint8_t *file = sound_file(3, &n);
    struct gguf *g = open_ok(file, n);
    uint64_t hash = gguf_fingerprint(g);
    size_t content = (size_t)tensor_dir_find(gguf_tensors(g), "a.weight")->offset;
    size_t value = (size_t)(gguf_find(g, "general.architecture")->value.p - file);
    cr_assert_eq(hash, gguf_fingerprint(g));
    gguf_close(g);
    file[content + 9] ^= 1;
    g = open_ok(file, n);
    cr_assert_neq(hash, gguf_fingerprint(g));
    gguf_close(g);
    file[content + 9] ^= 1;
    file[value] = 'x';
    g = open_ok(file, n);
    cr_assert_neq(hash, gguf_fingerprint(g));
    gguf_close(g);
    mem_free(file);
}

Test(gguf, opens_files_and_says_which_it_cannot)
{
    struct strbuf path = STRBUF_INIT;
    struct gguf_build b;
    struct gguf *g = NULL;
    struct error err;
    strbuf_addf(&path, "/tmp/baton-gguf-%ld.gguf", (long)getpid());
    FILE *f = fopen(path.s, "wb");
    cr_assert(f && fclose(f) == 0);
    cr_assert_eq(gguf_open(&g, path.s, &err), ERR_PARSE);
    cr_assert(strstr(err.text, path.s) && strstr(err.text, "empty"), "%s", err.text);
    gguf_build_init(&b, 3);
    gguf_build_tensor(&b, "a", DTYPE_F32, 2, SHAPE_4X2, EIGHT, 32);
    cr_assert(gguf_build_save(&b, path.s));
    cr_assert(gguf_open(&g, path.s, &err) == OK && gguf_fds(g)[0] >= 0, "%s", err.text);
    cr_assert(bytes_eq(gguf_tensor_bytes(g, &gguf_tensors(g)->entries[0]), EIGHT, 32));
    gguf_close(g);
    unlink(path.s);
    cr_assert_eq(gguf_open(&g, path.s, &err), ERR_NOT_FOUND);
    cr_assert_eq(gguf_open(&g, "/tmp", &err), ERR_INVALID);
    cr_assert_eq(mkfifo(path.s, 0600), 0);
    cr_assert_eq(gguf_open(&g, path.s, &err), ERR_INVALID, "nobody writes into it: it is not waited for");
    unlink(path.s);
    strbuf_fini(&path);
    gguf_close(NULL);
}

Test(gguf, reads_a_real_model)
{
    struct strbuf path = STRBUF_INIT;
    const char *dir = getenv("BATON_TEST_MODELS");
    struct gguf *g = NULL;
    struct error err;
    uint32_t layers;
    strbuf_addf(&path, "%s/SmolLM2-135M-Instruct.Q4_1.gguf", dir ? dir : "models");
    if (access(strbuf_cstr(&path), R_OK) != 0) {
        strbuf_fini(&path);
        cr_skip_test("no model file");
    }
    cr_assert(gguf_open(&g, strbuf_cstr(&path), &err) == OK, "%s", err.text);
    strbuf_fini(&path);
    cr_assert_eq(gguf_tensors(g)->n, 272);
    cr_assert(gguf_get_u32(g, "llama.block_count", &layers, &err) == OK && layers == 30);
    const struct tensor_entry *t = tensor_dir_find(gguf_tensors(g), "blk.29.ffn_down.weight");
    cr_assert(t && t->type == DTYPE_Q4_1 && t->ne[0] == 1536 && t->ne[1] == 576);
    gguf_close(g);
}
