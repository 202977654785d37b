/* openai_fields.h - one row for each field that a request may have, shared by the two files of the parse. */
#ifndef COORDINATOR_OPENAI_FIELDS_H
#define COORDINATOR_OPENAI_FIELDS_H
#include "coordinator/neutral.h"
#include "coordinator/openai.h"

struct parse { /* one request body on its way */
    struct api_request *r;
    const struct openai_limits *limits;
    struct api_error *e;
    int64_t top_logprobs; /* -1 = not given */
    int64_t best_of;      /* 0 = not given */
    bool chat_logprobs;
    struct field_flag {
        bool given, on;
    } add_generation_prompt, continue_final;
};

typedef enum status (*field_fn)(struct parse *p, const char *name, const json_t *v);

/* Members: NUM float, INT int64_t, COUNT uint32_t, BOOL bool; a FN writes its own. */
enum field_kind { FIELD_NUM, FIELD_INT, FIELD_COUNT, FIELD_BOOL, FIELD_FN, FIELD_IGNORED, FIELD_REFUSED };

struct field {
    const char *name;
    enum field_kind kind;
    unsigned endpoints; /* bits of enum api_endpoint */
    size_t offset;      /* in struct api_request */
    double min, max;
    field_fn fn;
    struct neutral neutral; /* with these values it is as if the field were not there, whatever its kind */
};

/* NULL: the endpoint has no such field. */
const struct field *fields_find(const char *name, enum api_endpoint endpoint);
enum status fields_read(struct parse *p, const struct field *f, const json_t *v) MUST_CHECK;
/* A member that the endpoint does not read itself: taken where it asks for nothing at an endpoint that knows it, or is
 * without effect everywhere (but for `strict`). */
enum status fields_check_other(const char *name, const json_t *v, enum api_endpoint endpoint, bool strict,
                               struct api_error *e) MUST_CHECK;
/* "'name' why" as an error, which it returns. */
enum status fields_unsupported(struct parse *p, const char *name, const char *why);
#endif
