/* cmd_inspect.c - `baton inspect`: what is in a GGUF file. */
#include "base/mem.h"
#include "base/strbuf.h"
#include "compute/dtype.h"
#include "coordinator/cli/cell.h"
#include "coordinator/cli/cli.h"
#include "coordinator/cli/inspect_notes.h"
#include "formats/gguf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct inspect_options {
    char *model;
    bool tensors, template;
};

#define AT(field) offsetof(struct inspect_options, field)

static const struct config_option OPTIONS[] = {
    COMMAND_TEXT("model", "m", AT(model), "FILE.gguf", "", "the file; it may also stand alone"),
    COMMAND_SWITCH("tensors", NULL, AT(tensors), "list every tensor, not only a line for each type"),
    COMMAND_SWITCH("template", NULL, AT(template), "print the chat template and nothing else"),
};
static const struct command COMMAND = { "baton inspect", "[FILE.gguf]",
                                        "Shows a model file's size, metadata, parameters and tensors.\n", OPTIONS,
                                        sizeof(OPTIONS) / sizeof(OPTIONS[0]) };

#define MAX_SHOWN_TEXT  72
#define MAX_SHOWN_ELEMS 6

struct type_sum {
    uint64_t n, elems, bytes;
};

/* Foreign text is shown without control bytes, which a terminal would obey. */
static void add_text(struct strbuf *sb, struct bytes text, size_t max)
{
    size_t n = text.n < max ? text.n : max;

    while (n < text.n && n > 0 && (text.p[n] & 0xc0) == 0x80) n--; /* not inside a UTF-8 sequence */
    for (size_t i = 0; i < n; i++) {
        uint8_t c = text.p[i];
        if (c == '\n') {
            strbuf_puts(sb, "\\n");
        } else {
            strbuf_putc(sb, c < 0x20 || c == 0x7f ? '?' : (char)c);
        }
    }
    if (n < text.n) strbuf_addf(sb, "... (%zu bytes)", text.n);
}

static void print_human(uint64_t n)
{
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)n;
    size_t u = 0;

    while (v >= 1024 && u + 1 < sizeof(units) / sizeof(units[0])) v /= 1024, u++;
    printf("%.*f %s", u ? 1 : 0, v, units[u]);
}

static const char *type_name(enum gguf_type type)
{
    static const char *const names[GGUF_TYPE_COUNT] = {
        [GGUF_U8] = "u8",   [GGUF_I8] = "i8",   [GGUF_U16] = "u16",   [GGUF_I16] = "i16",       [GGUF_U32] = "u32",
        [GGUF_I32] = "i32", [GGUF_F32] = "f32", [GGUF_BOOL] = "bool", [GGUF_STRING] = "string", [GGUF_ARRAY] = "array",
        [GGUF_U64] = "u64", [GGUF_I64] = "i64", [GGUF_F64] = "f64",
    };
    return names[type];
}

/* Any scalar is shown through the array accessors: it is an array of one. */
static void add_number(struct strbuf *sb, const struct gguf_kv *kv, uint64_t i)
{
    int64_t v;
    double f;

    if (kv->elem_type == GGUF_BOOL)
        strbuf_puts(sb, kv->value.p[i] ? "true" : "false");
    else if (gguf_array_i64(kv, i, &v))
        strbuf_addf(sb, "%" PRId64, v);
    else if (gguf_array_f64(kv, i, &f))
        strbuf_addf(sb, "%.9g", f);
}

static void add_array(struct strbuf *sb, const struct gguf_kv *kv)
{
    struct gguf_str_iter it = { 0 };
    struct bytes text;
    uint64_t shown = kv->n < MAX_SHOWN_ELEMS ? kv->n : MAX_SHOWN_ELEMS;

    strbuf_addf(sb, "%" PRIu64 " x %s", kv->n, type_name(kv->elem_type));
    if (kv->elem_type == GGUF_ARRAY) return;
    strbuf_puts(sb, " [");
    for (uint64_t i = 0; i < shown; i++) {
        if (i) strbuf_puts(sb, ", ");
        if (gguf_array_next_str(kv, &it, &text)) {
            strbuf_putc(sb, '"');
            add_text(sb, text, 16);
            strbuf_putc(sb, '"');
        } else {
            add_number(sb, kv, i);
        }
    }
    strbuf_puts(sb, shown < kv->n ? ", ...]" : "]");
}

static void print_kv(const struct gguf_kv *kv, size_t width)
{
    struct strbuf key = STRBUF_INIT, value = STRBUF_INIT;

    add_text(&key, kv->key, MAX_SHOWN_TEXT);
    if (kv->type == GGUF_STRING) {
        add_text(&value, kv->value, MAX_SHOWN_TEXT);
    } else if (kv->type == GGUF_ARRAY) {
        add_array(&value, kv);
    } else {
        struct gguf_kv one = *kv;
        one.elem_type = kv->type;
        one.type = GGUF_ARRAY;
        one.n = 1;
        add_number(&value, &one, 0);
    }
    printf("  ");
    cell_print(strbuf_cstr(&key), width);
    printf("%-7s %s\n", type_name(kv->type), strbuf_cstr(&value));
    strbuf_fini(&key);
    strbuf_fini(&value);
}

static uint64_t elems_of(const struct tensor_entry *t)
{
    return t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
}

static void print_types(const struct tensor_dir *dir)
{
    struct type_sum sums[DTYPE_LIMIT] = { 0 };

    for (size_t i = 0; i < dir->n; i++) {
        struct type_sum *s = &sums[dir->entries[i].type]; /* gguf_open knows only types of the table */
        s->n++;
        s->elems += elems_of(&dir->entries[i]);
        s->bytes += dir->entries[i].bytes;
    }
    for (uint32_t t = 0; t < DTYPE_LIMIT; t++) {
        if (sums[t].n == 0) continue;
        printf("  %-8s %6" PRIu64 " tensors %16" PRIu64 " parameters  ", dtype_info(t)->name, sums[t].n, sums[t].elems);
        print_human(sums[t].bytes);
        printf("%s\n", dtype_info(t)->supported ? "" : "  (not supported by baton)");
    }
}

/* How wide the column of keys or of tensors' names is. */
static void fit_name(size_t *width, struct bytes name)
{
    struct strbuf shown = STRBUF_INIT;

    add_text(&shown, name, MAX_SHOWN_TEXT);
    cell_fit(width, strbuf_cstr(&shown));
    strbuf_fini(&shown);
}

static void print_tensor(const struct tensor_entry *t, size_t width)
{
    struct strbuf name = STRBUF_INIT, shape = STRBUF_INIT;

    add_text(&name, bytes_of(t->name, strlen(t->name)), MAX_SHOWN_TEXT);
    for (uint32_t i = 0; i < t->n_dims; i++) strbuf_addf(&shape, "%s%" PRIu64, i ? " x " : "", t->ne[i]);
    printf("  ");
    cell_print(strbuf_cstr(&name), width);
    printf("%-8s %-24s %14" PRIu64 " bytes at %" PRIu64 "\n", dtype_info(t->type)->name, strbuf_cstr(&shape), t->bytes,
           t->offset);
    strbuf_fini(&name);
    strbuf_fini(&shape);
}

static void print_overview(const struct gguf *g, const char *path, bool all_tensors)
{
    const struct tensor_dir *dir = gguf_tensors(g);
    uint64_t params = 0, bytes = 0;
    size_t key_width = 0, name_width = 0;

    for (size_t i = 0; i < dir->n; i++) {
        params += elems_of(&dir->entries[i]);
        bytes += dir->entries[i].bytes;
    }
    printf("file         %s\nsize         %" PRIu64 " bytes (", path, gguf_all_bytes(g));
    print_human(gguf_all_bytes(g));
    if (gguf_n_parts(g) > 1) printf(", %" PRIu32 " parts", gguf_n_parts(g));
    printf(")\nformat       GGUF v%" PRIu32 "\nfingerprint  %016" PRIx64 "\n", gguf_version(g), gguf_fingerprint(g));
    printf("parameters   %" PRIu64 " (%.1f M)", params, (double)params / 1e6);
    if (params) printf(", %.2f bits each", (double)bytes * 8 / (double)params);
    printf("\n\nmetadata (%zu)\n", gguf_n_kv(g));
    for (size_t i = 0; i < gguf_n_kv(g); i++) fit_name(&key_width, gguf_kv_at(g, i)->key);
    for (size_t i = 0; i < gguf_n_kv(g); i++) print_kv(gguf_kv_at(g, i), key_width);
    printf("\ntensors (%zu)\n", dir->n);
    print_types(dir);
    if (!all_tensors) return;
    printf("\n");
    for (size_t i = 0; i < dir->n; i++)
        fit_name(&name_width, bytes_of(dir->entries[i].name, strlen(dir->entries[i].name)));
    for (size_t i = 0; i < dir->n; i++) print_tensor(&dir->entries[i], name_width);
}

static int print_template(const struct gguf *g)
{
    struct bytes text;
    struct error err;

    if (gguf_get_str(g, "tokenizer.chat_template", &text, &err) != OK) {
        fprintf(stderr, "error: %s\n", err.text);
        return 1;
    }
    fwrite(text.p, 1, text.n, stdout);
    printf("\n");
    return 0;
}

static int inspect(const struct inspect_options *o, const char *path)
{
    struct gguf *g;
    struct error err;
    int rc = 0;

    if (gguf_open(&g, path, &err) != OK) {
        fprintf(stderr, "error: %s\n", err.text);
        return 1;
    }
    if (o->template) {
        rc = print_template(g);
    } else {
        print_overview(g, path, o->tensors);
        inspect_notes(g, path);
    }
    gguf_close(g);
    return rc;
}

int cmd_inspect(int argc, char **argv)
{
    struct inspect_options o = { 0 };
    int n_files, rc = command_parse(&COMMAND, &o, argc, argv, &n_files);

    if (rc >= 0) return rc;
    const int n_given = n_files + (o.model != NULL);
    if (n_given == 1) {
        rc = inspect(&o, o.model ? o.model : argv[1]);
    } else {
        fprintf(stderr, "%s: one file is needed, %d are given; --help says more\n", COMMAND.name, n_given);
        rc = EXIT_USAGE;
    }
    command_free(&COMMAND, &o);
    return rc;
}
