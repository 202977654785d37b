/* served_model.c - loads a model's facts and vocabulary, and closes its file again. */
#include "coordinator/served_model.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "formats/file_notes.h"
#include "formats/gguf.h"
#include "formats/vocab_load.h"
#include "text/chat.h"
#include "text/tokenizer.h"
#include "text/vocab.h"

#include <stdio.h>
#include <string.h>

/* metadata keys are named after the architecture: "llama.context_length" */
static enum status arch_u32(const struct gguf *g, const char *what, uint32_t *out, struct error *err)
{
    struct bytes arch;
    char key[128];
    enum status st = gguf_get_str(g, "general.architecture", &arch, err);
    if (st != OK) return st;
    if (arch.n > 64) return error_set(err, ERR_PARSE, "general.architecture is longer than 64 bytes");
    snprintf(key, sizeof(key), "%.*s.%s", (int)arch.n, (const char *)arch.p, what);
    return gguf_get_u32(g, key, out, err);
}

static enum status read_facts(struct served_model *m, const struct gguf *g, struct error *err)
{
    const struct tensor_dir *dir = gguf_tensors(g);
    enum status st;
    if ((st = arch_u32(g, "context_length", &m->context_length, err)) != OK) return st;
    if ((st = arch_u32(g, "embedding_length", &m->d_model, err)) != OK) return st;
    if (m->context_length == 0) return error_set(err, ERR_INVALID, "context_length is 0");
    m->n_vocab = m->vocab->n_ids;
    for (size_t i = 0; i < dir->n; i++) {
        const struct tensor_entry *t = &dir->entries[i];
        m->n_params += t->ne[0] * t->ne[1] * t->ne[2] * t->ne[3];
    }
    m->file_bytes = gguf_all_bytes(g);
    m->fingerprint = gguf_fingerprint(g);
    return OK;
}

/* A template that cannot be compiled costs the model its chat endpoint, nothing else. */
static void create_chat(struct served_model *m)
{
    struct error err;
    if (chat_create(&m->chat, m->vocab, &err) == OK) return;
    m->chat = NULL;
    m->chat_error = mem_strdup(err.text);
    log_warn("chat_template_refused", "model=%s reason=%s", log_quote(m->name), log_quote(err.text));
}

static void log_note(void *model, const char *note)
{
    const struct served_model *m = model;
    log_warn("model_lacks", "model=%s what=%s", log_quote(m->name), log_quote(note));
}

enum status served_model_open(struct served_model **out, const char *name, const char *path, struct error *err)
{
    struct served_model *m = mem_zalloc(sizeof(*m));
    struct gguf *g = NULL;
    enum status st;
    m->name = mem_strdup(name);
    m->created = clock_unix_s();
    if ((st = gguf_open(&g, path, err)) != OK) goto fail;
    if ((st = vocab_load_gguf(&m->vocab, g, err)) != OK) goto fail;
    if ((st = read_facts(m, g, err)) != OK) goto fail;
    file_notes(g, m->vocab, log_note, m);
    gguf_close(g);
    g = NULL;
    if ((st = tokenizer_create(&m->tokenizer, m->vocab, err)) != OK) goto fail;
    create_chat(m);
    if (m->chat && chat_note(m->chat)) log_note(m, chat_note(m->chat));
    *out = m;
    return OK;
fail:
    if (err && !strstr(err->text, path)) error_prefix(err, "%s", path);
    error_prefix(err, "model %s", name);
    gguf_close(g);
    served_model_close(m);
    return st;
}

void served_model_close(struct served_model *m)
{
    if (!m) return;
    chat_destroy(m->chat);
    tokenizer_destroy(m->tokenizer);
    vocab_destroy(m->vocab);
    mem_free(m->chat_error);
    mem_free(m->name);
    mem_free(m);
}

enum status served_model_encode(const struct served_model *m, const char *text, size_t n, struct encode_options opt,
                                struct token_list *out, bool *added_bos, struct error *err)
{
    const struct vocab *v = m->vocab;
    struct token_list ids = { 0 };
    enum status st = tokenizer_encode(m->tokenizer, text, n, opt, &ids, err);
    bool bos = false;
    if (st == OK) {
        bos = v->add_bos && v->bos_id != TOKEN_NONE && (ids.n == 0 || ids.ids[0] != v->bos_id);
        if (bos) token_list_add(out, v->bos_id);
        for (size_t i = 0; i < ids.n; i++) token_list_add(out, ids.ids[i]);
    }
    if (added_bos) *added_bos = bos;
    token_list_fini(&ids);
    return st;
}

enum status served_model_render(const struct served_model *m, const json_t *messages, const struct chat_options *opt,
                                struct chat_prompt *out, struct error *err)
{
    if (!m->chat) return error_set(err, ERR_UNSUPPORTED, "the chat template of model %s: %s", m->name, m->chat_error);
    return chat_render(m->chat, messages, opt, out, err);
}

void served_model_token_bytes(const struct served_model *m, int32_t id, struct strbuf *out)
{
    uint8_t buf[256];
    if (!vocab_has_text(m->vocab, id)) return;
    size_t n = vocab_token_bytes(m->vocab, id, buf, sizeof(buf));
    if (n <= sizeof(buf)) {
        strbuf_add(out, buf, n);
        return;
    }
    uint8_t *big = mem_alloc(n);
    strbuf_add(out, big, vocab_token_bytes(m->vocab, id, big, n));
    mem_free(big);
}
