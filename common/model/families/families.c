/* families.c - the table of families. */
#include "model/families/families.h"

#include "base/strbuf.h"

#include <string.h>

static const struct family *const FAMILIES[] = { &family_llama,     &family_qwen2,   &family_qwen3,
                                                 &family_qwen3moe,  &family_gemma2,  &family_gemma3,
                                                 &family_phi3,      &family_gpt_oss, &family_deepseek2,
                                                 &family_qwen3next, &family_qwen35,  &family_qwen35moe,
                                                 &family_mamba2 };
#define N_FAMILIES (sizeof(FAMILIES) / sizeof(FAMILIES[0]))

const struct family *family_find(struct bytes name)
{
    for (size_t i = 0; i < N_FAMILIES; i++)
        if (bytes_eq(name, FAMILIES[i]->name, strlen(FAMILIES[i]->name))) return FAMILIES[i];
    return NULL;
}

enum status family_refuse(struct bytes name, struct error *err)
{
    struct strbuf known = STRBUF_INIT;
    for (size_t i = 0; i < N_FAMILIES; i++) strbuf_addf(&known, "%s%s", i ? ", " : "", FAMILIES[i]->name);
    enum status st = error_set(err, ERR_UNSUPPORTED, "general.architecture is \"%.*s\", supported are: %s",
                               (int)(name.n < 64 ? name.n : 64), (const char *)name.p, strbuf_cstr(&known));
    strbuf_fini(&known);
    return st;
}
