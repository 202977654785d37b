/* memory_plan.h - whether weights lie in memory or are streamed, decided from numbers alone. */
#ifndef MODEL_MEMORY_PLAN_H
#define MODEL_MEMORY_PLAN_H
#include "base/host_memory.h"
#include "model/model.h"

struct memory_need {   /* bytes */
    uint64_t resident; /* packed weights */
    uint64_t stream;   /* what streaming them takes */
    uint64_t kv;
    uint64_t buffers; /* of a step */
};

#define MEMORY_PLAN_SPARE (100ull << 20) /* left free where `auto` chooses resident */

/* Makes WEIGHTS_AUTO one of the others.  ERR_NO_MEMORY, with all numbers, if that does not fit what is left. */
enum status memory_plan(enum weights_mode *mode, const struct memory_need *need, const struct host_memory *left,
                        struct error *err) MUST_CHECK;
#endif
