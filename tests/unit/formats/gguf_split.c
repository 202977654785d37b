/* gguf_split: parts are one model by the first part's name; parts that are not of one model are refused. */
#include "base/mem.h"
#include "compute/dtype.h"
#include "formats/gguf.h"
#include "helpers/gguf_build.h"
#include "helpers/gguf_cut.h"
#include "helpers/tiny_model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What a part says and has. */
struct part {
    uint32_t no, count, n_tensors;
    const char *tensor; /* one of four floats; NULL: none */
    const char *arch;   /* NULL: not said */
    const char *title;  /* the last key; NULL: not said */
};

static const float FLOATS[3][4] = { { 0, 1, 2, 3 }, { 10, 11, 12, 13 }, { 20, 21, 22, 23 } };
static const struct part SOUND[3] = { { 0, 3, 3, "a", "llama" }, { 1, 3, 3, "b", NULL }, { 2, 3, 3, "c", "llama" } };

static struct bytes build(const struct part *p, const float *floats)
{
    struct gguf_build b;
    size_t n;
    gguf_build_init(&b, 3);
    if (p->arch) gguf_build_str(&b, "general.architecture", p->arch);
    if (p->no == 1) gguf_build_alignment(&b, 64); /* each part has its own */
    gguf_build_u32(&b, "split.no", p->no);
    gguf_build_u32(&b, "split.count", p->count);
    gguf_build_u32(&b, "split.tensors.count", p->n_tensors);
    if (p->title) gguf_build_str(&b, "general.name", p->title);
    if (p->tensor) gguf_build_tensor(&b, p->tensor, DTYPE_F32, 1, (const uint64_t[]){ 4 }, floats, 16);
    const uint8_t *file = gguf_build_finish(&b, &n);
    return bytes_of(file, n);
}

static enum status open_parts(struct gguf **g, const struct part *parts, struct bytes *files, uint32_t n,
                              struct error *err)
{
    for (uint32_t i = 0; i < n; i++) files[i] = build(&parts[i], FLOATS[i]);
    return gguf_open_parts(g, files, n, err);
}

static void free_files(struct bytes *files, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) mem_free((void *)files[i].p);
}

Test(gguf_split, parts_are_one_directory)
{
    static const char *const NAMES[] = { "a", "b", "c" };
    struct gguf *g = NULL;
    struct error err = { 0 };
    struct bytes files[3];
    cr_assert_eq(open_parts(&g, SOUND, files, 3, &err), OK, "%s", err.text);
    const struct tensor_dir *dir = gguf_tensors(g);
    cr_assert(gguf_n_parts(g) == 3 && dir->n == 3 && !gguf_fds(g));
    cr_assert_eq(gguf_all_bytes(g), files[0].n + files[1].n + files[2].n);
    for (uint32_t i = 0; i < 3; i++) {
        const struct tensor_entry *t = tensor_dir_find(dir, NAMES[i]);
        cr_assert(t && t->part == i);
        cr_assert(bytes_eq(gguf_tensor_bytes(g, t), FLOATS[i], 16));
        cr_assert_eq(gguf_part(g, i).p, files[i].p);
    }
    gguf_close(g);
    free_files(files, 3);
}

/* The fingerprint is of all parts. */
Test(gguf_split, fingerprint_sees_every_part)
{
    struct gguf *g = NULL;
    struct bytes files[3];
    cr_assert_eq(open_parts(&g, SOUND, files, 3, NULL), OK);
    const uint64_t hash = gguf_fingerprint(g);
    for (uint32_t i = 0; i < 3; i++) {
        uint8_t *byte = (uint8_t *)files[i].p + gguf_tensors(g)->entries[i].offset;
        *byte ^= 1;
        cr_assert_neq(gguf_fingerprint(g), hash, "part %u", i);
        *byte ^= 1;
    }
    cr_assert_eq(gguf_fingerprint(g), hash);
    gguf_close(g);
    free_files(files, 3);
}

Test(gguf_split, refuses_parts_that_are_not_of_one_model)
{
    static const struct {
        struct part parts[3];
        uint32_t n;
        const char *text;
    } rows[] = {
        { { { 0, 3, 3, "a", "llama" }, { 1, 3, 3, "b", NULL } }, 2, "part 1 of 3 of a model, given with 1 more" },
        { { { 0, 3, 3, "a", "llama" } }, 1, "part 1 of 3 of a model, given with 0 more" },
        { { { 1, 3, 3, "a", "llama" } }, 1, "part 2 of 3 of a model" },
        { { { 0, 1, 1, "a", "llama" }, { 1, 2, 2, "b", NULL } }, 2, "part 1 of 1 of a model, given with 1 more" },
        { { { 0, 2, 2, "a", "llama" }, { 0, 1, 2, "b", NULL } }, 2, "part 2 of 2: it is a whole model" },
        { { { 0, 2, 2, "a", "llama" }, { 0, 2, 2, "b", NULL } }, 2, "says part 1 of 2, expected part 2 of 2" },
        { { { 0, 2, 2, "a", "llama" }, { 1, 3, 2, "b", NULL } }, 2, "says part 2 of 3, expected part 2 of 2" },
        { { { 0, 2, 2, "a", "llama" }, { 1, 2, 3, "b", NULL } }, 2, "split.tensors.count is 3, the first part's 2" },
        { { { 0, 2, 2, "a", "llama" }, { 1, 2, 2, "b", "qwen2" } }, 2, "'general.architecture' differs" },
        { { { 0, 2, 2, "a", "llama", "one" }, { 1, 2, 2, "b", "llama", "two" } }, 2, "'general.name' differs" },
        { { { 0, 2, 2, "a", "llama", "one" }, { 1, 2, 2, "b", "llama", "on" } }, 2, "'general.name' differs" },
        { { { 0, 2, 3, "a", "llama" }, { 1, 2, 3, "b", NULL } },
          2,
          "2 parts have 2 tensors, split.tensors.count says 3" },
        { { { 0, 3, 3, "a", "llama" }, { 1, 3, 3, "b", NULL }, { 2, 3, 3, "a", NULL } },
          3,
          "tensor 'a' occurs in part 1 and in part 3" },
        { { { 3, 3, 3, "a", "llama" } }, 1, "split.no is 3 and split.count 3" },
        { { { 0, 100000, 3, "a", "llama" } }, 1, "split.count is 100000, expected at most 99999" },
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct gguf *g = NULL;
        struct error err = { 0 };
        struct bytes files[3];
        enum status st = open_parts(&g, rows[i].parts, files, rows[i].n, &err);
        cr_assert(st != OK && !g && strstr(err.text, rows[i].text), "expected '%s', got '%s'", rows[i].text, err.text);
        free_files(files, rows[i].n);
    }
}

static void expect_refused(const char *path, enum status want, const char *named, const char *text)
{
    struct gguf *g = NULL;
    struct error err = { 0 };
    cr_assert_eq(gguf_open(&g, path, &err), want, "%s", err.text);
    cr_assert(!g && strstr(err.text, text) && strstr(err.text, named), "expected '%s' of %s, got '%s'", text, named,
              err.text);
}

/* "x-00002-of-00003.gguf" and the like. */
static char *neighbour(const char *first, char no)
{
    char *path = mem_strdup(first);
    path[strlen(path) - sizeof("1-of-00003.gguf") + 1] = no;
    return path;
}

Test(gguf_split, files_are_found_by_the_first_parts_name)
{
    struct tiny_options o = tiny_defaults();
    char *whole = tiny_write(&o), *first = gguf_cut(whole, 3), *second = neighbour(first, '2');
    char odd[300];
    struct gguf *one = NULL, *cut = NULL;
    struct error err = { 0 };
    cr_assert_eq(gguf_open(&one, whole, &err), OK, "%s", err.text);
    cr_assert_eq(gguf_open(&cut, first, &err), OK, "%s", err.text);
    cr_assert(gguf_n_parts(cut) == 3 && gguf_tensors(cut)->n == gguf_tensors(one)->n);
    for (size_t i = 0; i < gguf_tensors(one)->n; i++) {
        const struct tensor_entry *a = &gguf_tensors(one)->entries[i], *b = tensor_dir_find(gguf_tensors(cut), a->name);
        cr_assert(b && b->part == 1 + (i * 2 >= gguf_tensors(one)->n), "%s", a->name);
        cr_assert(bytes_eq(gguf_tensor_bytes(one, a), gguf_tensor_bytes(cut, b).p, (size_t)b->bytes), "%s", a->name);
    }
    cr_assert_eq(gguf_check_unchanged(cut, &err), OK, "%s", err.text);
    cr_assert_eq(truncate(second, 1000), 0);
    cr_assert_eq(gguf_check_unchanged(cut, &err), ERR_CORRUPT);
    gguf_close(one);
    gguf_close(cut);
    tiny_remove(whole);
    expect_refused(first, ERR_PARSE, second, "the file ends at byte 1000");
    unlink(second);
    expect_refused(first, ERR_NOT_FOUND, second, "part 2 of 3: ");
    char *third = neighbour(first, '3');
    expect_refused(third, ERR_INVALID, third, first); /* what would be right */
    snprintf(odd, sizeof(odd), "%s.copy", first);
    cr_assert_eq(rename(first, odd), 0);
    expect_refused(odd, ERR_INVALID, odd, "does not end in -00001-of-00003.gguf");
    unlink(odd);
    gguf_cut_remove(first, 3);
    mem_free(second);
    mem_free(third);
}
