/* fuzz_session.c - a session's frames: parsed as they come, and, with right sums, in any order and with any numbers. */
#include "wire/session.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define STEP 8

static void drain(struct session *s, uint64_t now)
{
    struct session_frame f;
    for (int i = 0; session_next(s, now, &f); i++) {
        if (i > 10000) abort(); /* there is always an end */
        session_sent(s, &f, now);
    }
}

/* One call for each 8 bytes: what to do, and the numbers of a frame that comes. */
static void drive(bool dials, const uint8_t *p, size_t n)
{
    struct session s;
    uint64_t now = 1000;

    session_init(&s, dials, 7, 4096, now);
    for (; n >= STEP; p += STEP, n -= STEP) {
        const struct session_frame f = { .kind = (enum session_kind)(1 + p[1] % (SESSION_KINDS - 1)),
                                         .flags = p[2],
                                         .id = 7,
                                         .connection = 1 + p[3] % 4,
                                         .seq = p[4],
                                         .ack = p[5],
                                         .body = bytes_of(p, p[6] % STEP) };
        uint64_t received = s.received, acked = s.acked;
        uint8_t *room;
        now += p[7];
        switch (p[0] % 6) {
        case 0:
            if ((room = session_add(&s, 1 + p[4]))) memset(room, 1, 1 + p[4]);
            break;
        case 1:
            if (dials) session_dial(&s, now);
            break;
        case 2: session_lost(&s); break;
        case 3: (void)session_tick(&s, now + 16 * p[4]); break;
        case 4: session_ping(&s); break;
        default:
            if (session_receive(&s, &f, now) == SESSION_DELIVER && f.kind == SESSION_DATA && s.received != received + 1)
                abort();
            break;
        }
        drain(&s, now);
        if (s.received < received || s.received > received + 1 || s.acked < acked) abort();
        if (s.n > 1 && s.bytes > s.max_bytes) abort();
        if (s.next <= s.acked || s.next > s.acked + s.n + 1) abort();
    }
    session_fini(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct session_frame f;
    uint8_t head[SESSION_HEADER];
    uint32_t version;

    if (session_parse(bytes_of(data, size), &f, &version) == OK) {
        session_pack_header(&f, head);
        if (memcmp(head, data, 16) != 0) abort(); /* what is read is what was written */
    }
    drive(true, data, size);
    drive(false, data, size);
    return 0;
}
