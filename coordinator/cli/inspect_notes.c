/* inspect_notes.c - what `baton inspect` says of a file beyond its contents: what makes answers worse, why it is not
 * served. */
#include "coordinator/cli/inspect_notes.h"

#include "formats/file_notes.h"
#include "formats/vocab_load.h"
#include "model/model.h"
#include "text/chat.h"
#include "text/vocab.h"

#include <stdio.h>

struct printer {
    bool any;
};

/* Sentences quote the file, whose control bytes a terminal would obey. */
static void print_sentence(const char *text)
{
    for (; *text; text++) putchar((unsigned char)*text < 0x20 || *text == 0x7f ? '?' : *text);
    putchar('\n');
}

static void print_note(void *printer, const char *note)
{
    struct printer *p = printer;
    if (!p->any) printf("\nnotes\n");
    p->any = true;
    printf("  ");
    print_sentence(note);
}

static void note_chat(const struct vocab *v, struct printer *p)
{
    struct chat *chat = NULL;
    struct error err;
    if (chat_create(&chat, v, &err) != OK)
        print_note(p, err.text);
    else if (chat_note(chat))
        print_note(p, chat_note(chat));
    chat_destroy(chat);
}

/* The coordinator's reasons to refuse a file come first, then those of nodes. */
static enum status note_all(const struct gguf *g, const char *path, struct printer *p, struct error *err)
{
    struct vocab *v = NULL;
    struct model_info info;
    enum status st = vocab_load_gguf(&v, g, err);
    if (st != OK) return st;
    file_notes(g, v, print_note, p);
    note_chat(v, p);
    vocab_destroy(v);
    return model_read_info(&info, path, err);
}

void inspect_notes(const struct gguf *g, const char *path)
{
    struct printer p = { false };
    struct error err;
    if (note_all(g, path, &p, &err) == OK) return;
    printf("\nnot served\n  ");
    print_sentence(err.text);
}
