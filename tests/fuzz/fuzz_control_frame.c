/* fuzz_control_frame.c - control frames: unpacked within bounds, jobs turned into engine requests. */
#include "node/jobs.h"
#include "wire/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_job(const Baton__Control__Job *job)
{
    struct seq_request r;
    struct error err = { OK, "" };

    if (job_request_of(&r, job, ENGINE_RESERVE, job && job->request ? job->request->incarnation : 0, &err) != OK) {
        if (err.text[0] == 0) abort();
        return;
    }
    if (r.n_prompt > r.n_tokens || sampling_check(&r.sampling, NULL) != OK) abort();
    int32_t last = r.tokens[r.n_tokens - 1];
    if (last != job->tokens[job->n_tokens - 1]) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct codec_arena *arena;
    ProtobufCMessage *base;
    const Baton__Control__ControlMessage *m;

    if (!arena) arena = codec_arena_create((size_t)8 << 20);
    if (codec_unpack(arena, &baton__control__control_message__descriptor, bytes_of(data, size), &base, NULL) != OK)
        return 0;
    m = (const Baton__Control__ControlMessage *)base;
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_RESERVE && m->reserve) try_job(m->reserve->job);
    if (m->body_case == BATON__CONTROL__CONTROL_MESSAGE__BODY_PREFILL && m->prefill) try_job(m->prefill->job);
    return 0;
}
