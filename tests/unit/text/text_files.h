/* text_files.h - what the units of text/ read from disk: a golden file, the real model's vocabulary. */
#ifndef UNIT_TEXT_TEXT_FILES_H
#define UNIT_TEXT_TEXT_FILES_H
#include "base/strbuf.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MODEL "SmolLM2-135M-Instruct.Q4_1.gguf"

/* A whole file; the caller frees it. */
static inline char *read_text(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct strbuf text = STRBUF_INIT;
    char piece[4096];
    size_t n;
    cr_assert(f, "%s cannot be read", path);
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0) strbuf_add(&text, piece, n);
    fclose(f);
    return strbuf_take(&text, NULL);
}

/* The vocabulary of the real model; skips the test where the file is not there. */
static inline struct vocab *real_vocab(void)
{
    const char *dir = getenv("BATON_TEST_MODELS");
    char path[4096];
    struct gguf *g = NULL;
    struct vocab *v = NULL;
    struct error err = { 0 };

    snprintf(path, sizeof(path), "%s/" MODEL, dir ? dir : TEST_DATA "/../models");
    if (access(path, R_OK) != 0) cr_skip_test("%s is not there", path);
    cr_assert_eq(gguf_open(&g, path, &err), OK, "%s", err.text);
    cr_assert_eq(vocab_load_gguf(&v, g, &err), OK, "%s", err.text);
    gguf_close(g);
    return v;
}
#endif
