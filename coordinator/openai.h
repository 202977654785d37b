/* openai.h - the JSON body of a chat or text completion to a checked request.
 *
 * Every field of the API is one row of a table: it is read, or accepted and ignored (and named in `ignored`), or
 * refused with its name.  null and the row's neutral values count as absent.  What needs the model (token ids, lengths)
 * is checked later. */
#ifndef COORDINATOR_OPENAI_H
#define COORDINATOR_OPENAI_H
#include "base/bytes.h"
#include "base/status.h"
#include "base/strbuf.h"
#include "job/sampling.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdint.h>

struct api_error;

#define OPENAI_MAX_CHOICES 128 /* answers to one request, all prompts together */
#define OPENAI_MAX_STOPS   64
#define OPENAI_MAX_STOP    1024    /* bytes of one stop string */
#define OPENAI_MAX_SALT    256     /* bytes of cache_salt */
#define OPENAI_MAX_VALUES  2000000 /* JSON values of one body */

enum api_endpoint { API_CHAT, API_COMPLETIONS, API_TOKENIZE, API_DETOKENIZE };

struct api_prompt { /* text, or ids if n_ids > 0 */
    char *text;
    size_t n_text;
    int32_t *ids;
    size_t n_ids;
};

struct api_stop {
    char *text;
    size_t n;
};

struct api_request {
    enum api_endpoint endpoint;
    char *model;                /* "" = not given */
    json_t *messages;           /* chat: [{role, content: string}] */
    struct api_prompt *prompts; /* completions */
    uint32_t n_prompts;
    int64_t n; /* answers to each prompt */
    bool stream, include_usage;
    bool add_generation_prompt, continue_final; /* chat: opens a new turn, or stays in the last one; never both */
    bool echo, tokens_as_ids;                   /* completions */
    int64_t max_tokens, max_completion_tokens;  /* -1 = not given, INT32_MAX = no limit; equal after the parse */
    int64_t priority;                           /* lower is earlier */
    struct sampling_params sampling;            /* but for max_tokens, which comes with the model */
    bool has_seed;                              /* else one is drawn */
    bool parse_special;                         /* completions: control tokens in the text of a prompt count */
    struct api_stop stops[OPENAI_MAX_STOPS];
    uint32_t n_stops;
    char *cache_salt;      /* "" = none */
    struct strbuf ignored; /* names of ignored fields: "user, store" */
};

struct openai_limits {
    uint32_t max_prompt_logprobs; /* widest logprobs together with echo */
    bool strict_params;           /* refuse what would be ignored */
    bool prefill_assistant;       /* without a word of the request: a last message of the assistant is continued */
    const atomic_bool *stop;      /* once true, parsing ends with ERR_CANCELLED; NULL: never */
};

/* Parses and checks `body`.  The caller owns *out; on failure it is untouched and `e` says what and where. */
enum status openai_parse(struct api_request **out, enum api_endpoint endpoint, struct bytes body,
                         const struct openai_limits *limits, struct api_error *e) MUST_CHECK;
/* Frees messages and prompts, once their tokens are known. */
void api_request_drop_texts(struct api_request *r);
void api_request_destroy(struct api_request *r); /* NULL is fine */

/* A JSON object from `body`; the caller gives the reference back.  For small endpoints, too.  ERR_CANCELLED once *stop
 * (NULL: never) is true. */
enum status openai_load_object(json_t **out, struct bytes body, const atomic_bool *stop,
                               struct api_error *e) MUST_CHECK;
/* Reads a JSON array of token ids (at least one), which stands at `path` in field `param`.  The caller frees *out. */
enum status openai_read_ids(int32_t **out, size_t *n, const json_t *array, const char *path, const char *param,
                            struct api_error *e) MUST_CHECK;
/* A whole number, also written as 2.0; false: it is none, or does not fit. */
bool openai_whole(const json_t *v, int64_t *out);
/* "a string", "null" ...: what a value is, for messages. */
const char *openai_kind(const json_t *v);

/* openai_content.c: the fields which hold text. */
enum status openai_read_messages(struct api_request *r, const json_t *v, struct api_error *e) MUST_CHECK;
enum status openai_read_prompt(struct api_request *r, const json_t *v, struct api_error *e) MUST_CHECK;
enum status openai_read_stop(struct api_request *r, const json_t *v, struct api_error *e) MUST_CHECK;
#endif
