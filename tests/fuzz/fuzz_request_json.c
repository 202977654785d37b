/* fuzz_request_json.c - any bytes as the body of a chat or text completion, strict and lenient. */
#include "coordinator/api_error.h"
#include "coordinator/openai.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    for (int endpoint = API_CHAT; endpoint <= API_COMPLETIONS; endpoint++) {
        struct openai_limits limits = { .max_prompt_logprobs = 20, .strict_params = size & 1 };
        struct api_request *r = NULL;
        struct api_error e;
        if (openai_parse(&r, (enum api_endpoint)endpoint, bytes_of(data, size), &limits, &e) != OK) {
            struct strbuf out = STRBUF_INIT;
            if (r || e.http < 400) abort(); /* a refusal leaves nothing behind and has a status */
            api_error_json(&e, &out);
            strbuf_fini(&out);
            continue;
        }
        if (endpoint == API_COMPLETIONS ? r->n_prompts == 0 : json_array_size(r->messages) == 0) abort();
        if (r->n_stops > OPENAI_MAX_STOPS || r->sampling.n_bias > SAMPLING_MAX_BIAS ||
            r->sampling.n_logprobs > SAMPLING_MAX_LOGPROBS)
            abort();
        api_request_destroy(r);
    }
    return 0;
}
