/* gguf_cut.c - writes the parts of a model, for tests. */
#include "helpers/gguf_cut.h"

#include "base/mem.h"
#include "formats/gguf.h"
#include "helpers/gguf_build.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SUFFIX "-%05u-of-%05u.gguf"

static void add_key(struct gguf_build *b, const struct gguf_kv *kv)
{
    struct strbuf key = STRBUF_INIT, value = STRBUF_INIT;
    strbuf_add(&key, kv->key.p, kv->key.n);
    if (kv->type == GGUF_ARRAY) strbuf_add(&value, &(uint32_t){ kv->elem_type }, 4);
    if (kv->type == GGUF_ARRAY) strbuf_add(&value, &kv->n, 8);
    if (kv->type == GGUF_STRING) strbuf_add(&value, &(uint64_t){ kv->value.n }, 8);
    strbuf_add(&value, kv->value.p, kv->value.n);
    gguf_build_raw(b, strbuf_cstr(&key), kv->type, value.s, value.n);
    strbuf_fini(&key);
    strbuf_fini(&value);
}

static void write_part(const struct gguf *g, const char *path, uint32_t no, uint32_t n_parts)
{
    const struct tensor_dir *dir = gguf_tensors(g);
    const uint32_t n_empty = n_parts > 2, n_full = n_parts - n_empty;
    struct gguf_build b;
    gguf_build_init(&b, 3);
    for (size_t i = 0; no == 0 && i < gguf_n_kv(g); i++) add_key(&b, gguf_kv_at(g, i));
    gguf_build_raw(&b, "split.no", GGUF_U16, &(uint16_t){ (uint16_t)no }, 2);
    gguf_build_raw(&b, "split.count", GGUF_U16, &(uint16_t){ (uint16_t)n_parts }, 2);
    gguf_build_i32(&b, "split.tensors.count", (int32_t)dir->n);
    for (size_t i = 0; i < dir->n; i++) {
        const struct tensor_entry *t = &dir->entries[i];
        if (i * n_full / dir->n + n_empty != no) continue;
        gguf_build_tensor(&b, t->name, t->type, t->n_dims, t->ne, gguf_tensor_bytes(g, t).p, (size_t)t->bytes);
    }
    cr_assert(gguf_build_save(&b, path), "%s", path);
}

static char *part_path(const char *path, size_t stem, uint32_t no, uint32_t n_parts)
{
    struct strbuf name = STRBUF_INIT;
    strbuf_addf(&name, "%.*s" SUFFIX, (int)stem, path, no + 1, n_parts);
    return strbuf_take(&name, NULL);
}

char *gguf_cut(const char *path, uint32_t n_parts)
{
    struct gguf *g = NULL;
    struct error err = { 0 };
    cr_assert_eq(gguf_open(&g, path, &err), OK, "%s", err.text);
    for (uint32_t i = 0; i < n_parts; i++) {
        char *name = part_path(path, strlen(path), i, n_parts);
        write_part(g, name, i, n_parts);
        mem_free(name);
    }
    gguf_close(g);
    return part_path(path, strlen(path), 0, n_parts);
}

void gguf_cut_remove(char *first, uint32_t n_parts)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        char *name =
            part_path(first, strlen(first) - strlen("-00001-of-00001.gguf") /* all suffixes are as long */, i, n_parts);
        unlink(name);
        mem_free(name);
    }
    mem_free(first);
}
