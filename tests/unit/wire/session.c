/* session: whatever a wire does, each message arrives once, whole and in order, or the session says that it is over. */
#include "wire/session.h"

#include "base/mem.h"
#include "wire/codec.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#define ID      0xABCDEFu
#define ROOM    (1u << 20)
#define WIRE    4096
#define BODY    64
#define MESSAGE "the message with number %06u"

struct packet {
    uint8_t raw[SESSION_HEADER + BODY];
    size_t n;
};

struct wire { /* one direction of one connection */
    struct packet q[WIRE];
    size_t head, n;
};

struct end {
    struct session s;
    struct wire out;
    uint32_t got;  /* messages delivered */
    uint32_t made; /* messages added */
    bool over, dial;
};

struct pair {
    uint64_t now;
    struct end a, b; /* a dials */
};

static void put(struct wire *w, const struct session_frame *f)
{
    cr_assert_lt(w->n, (size_t)WIRE);
    struct packet *p = &w->q[(w->head + w->n++) % WIRE];
    session_pack_header(f, p->raw);
    if (f->body.n) memcpy(p->raw + SESSION_HEADER, f->body.p, f->body.n);
    p->n = SESSION_HEADER + f->body.n;
}

static void flush(struct end *e, uint64_t now)
{
    struct session_frame f;
    while (session_next(&e->s, now, &f)) {
        put(&e->out, &f);
        session_sent(&e->s, &f, now);
    }
}

static bool add(struct end *e)
{
    char text[BODY];
    int n = snprintf(text, sizeof(text), MESSAGE, e->made + 1);
    uint8_t *p = session_add(&e->s, (size_t)n);
    if (!p) return false;
    memcpy(p, text, (size_t)n);
    e->made++;
    return true;
}

static void deliver(struct end *to, const struct session_frame *f)
{
    char text[BODY];
    if (f->kind == SESSION_NOTE) return;
    int n = snprintf(text, sizeof(text), MESSAGE, ++to->got);
    cr_assert_eq(f->body.n, (size_t)n);
    cr_assert_eq(memcmp(f->body.p, text, (size_t)n), 0, "%.*s instead of %s", (int)f->body.n, (const char *)f->body.p,
                 text);
}

static void act(struct end *to, enum session_verdict v, const struct session_frame *f)
{
    if (v == SESSION_DELIVER) deliver(to, f);
    if (v == SESSION_DIAL) to->dial = true;
    if (v == SESSION_OVER) to->over = true;
}

static void take(struct end *to, const struct packet *p, uint64_t now)
{
    struct session_frame f;
    uint32_t version;
    if (session_parse(bytes_of(p->raw, p->n), &f, &version) != OK) {
        /* a dialler gives the connection up; an acceptor says so to whoever it was */
        if (to->s.dials) to->dial = true;
        return;
    }
    act(to, session_receive(&to->s, &f, now), &f);
}

static bool step(struct end *from, struct end *to, uint64_t now)
{
    if (from->out.n == 0) return false;
    struct packet p = from->out.q[from->out.head];
    from->out.head = (from->out.head + 1) % WIRE;
    from->out.n--;
    take(to, &p, now);
    return true;
}

static void redial(struct pair *x)
{
    x->a.out.n = x->b.out.n = 0; /* what was under way is lost */
    x->a.dial = false;
    session_dial(&x->a.s, x->now);
}

static void settle(struct pair *x)
{
    bool moved = true;
    while (moved) {
        if (x->a.dial) redial(x);
        flush(&x->a, x->now);
        flush(&x->b, x->now);
        moved = step(&x->a, &x->b, x->now);
        moved |= step(&x->b, &x->a, x->now);
    }
}

static void pass(struct pair *x, uint64_t ms)
{
    for (uint64_t end = x->now + ms; x->now < end;) {
        x->now += 50;
        act(&x->a, session_tick(&x->a.s, x->now), NULL);
        act(&x->b, session_tick(&x->b.s, x->now), NULL);
        settle(x);
    }
}

static struct pair *open_pair(size_t room)
{
    struct pair *x = mem_zalloc(sizeof(*x));
    x->now = 1000;
    session_init(&x->a.s, true, ID, room, x->now);
    session_init(&x->b.s, false, ID, room, x->now);
    session_dial(&x->a.s, x->now);
    settle(x);
    cr_assert(x->a.s.state == SESSION_OPEN && x->b.s.state == SESSION_OPEN);
    return x;
}

static void close_pair(struct pair *x)
{
    session_fini(&x->a.s);
    session_fini(&x->b.s);
    mem_free(x);
}

static void expect_all(struct pair *x)
{
    cr_assert(!x->a.over && !x->b.over);
    cr_assert_eq(x->b.got, x->a.made, "%u of %u came to b", x->b.got, x->a.made);
    cr_assert_eq(x->a.got, x->b.made, "%u of %u came to a", x->a.got, x->b.made);
    cr_assert(session_all_acked(&x->a.s) && session_all_acked(&x->b.s));
}

Test(session, carries_messages_both_ways_and_forgets_what_is_acknowledged)
{
    struct pair *x = open_pair(ROOM);
    for (int i = 0; i < 1000; i++) {
        cr_assert(add(&x->a) && add(&x->b));
        settle(x);
        cr_assert(x->a.s.n <= 2 * SESSION_ACK_MESSAGES && x->b.s.n <= 2 * SESSION_ACK_MESSAGES);
    }
    pass(x, 300);
    expect_all(x);
    cr_assert(x->a.s.bytes == 0 && x->b.s.bytes == 0);
    close_pair(x);
}

Test(session, keeps_what_is_added_before_and_between_connections)
{
    struct pair *x = mem_zalloc(sizeof(*x));
    x->now = 1000;
    session_init(&x->a.s, true, ID, ROOM, x->now);
    session_init(&x->b.s, false, ID, ROOM, x->now);
    add(&x->a);
    settle(x);
    cr_assert_eq(x->b.got, 0u);
    redial(x);
    settle(x);
    cr_assert_eq(x->b.got, 1u);
    session_lost(&x->a.s);
    session_lost(&x->b.s);
    for (int i = 0; i < 100; i++) add(&x->a), add(&x->b);
    settle(x);
    cr_assert(x->b.got == 1 && x->a.got == 0);
    redial(x);
    pass(x, 300);
    expect_all(x);
    close_pair(x);
}

Test(session, any_lost_frame_is_sent_again_on_a_new_connection)
{
    for (int lose = 0; lose < 12; lose++) {
        for (int of_a = 0; of_a < 2; of_a++) {
            struct pair *x = open_pair(ROOM);
            struct end *from = of_a ? &x->a : &x->b, *to = of_a ? &x->b : &x->a;
            for (int i = 0; i < 12; i++) add(from);
            flush(from, x->now);
            for (int i = 0; i < lose; i++) step(from, to, x->now);
            from->out.head = (from->out.head + 1) % WIRE;
            from->out.n--;
            pass(x, 3 * SESSION_SILENCE_MS);
            expect_all(x);
            cr_assert_geq(x->a.s.count.connections, 2ull);
            close_pair(x);
        }
    }
}

Test(session, no_flipped_bit_passes)
{
    struct session_frame f = { .kind = SESSION_DATA, .id = ID, .connection = 3, .seq = 7, .ack = 9 };
    struct session_frame out;
    const uint8_t body[] = { 0xFF, 0x00, 0x42, 0x13, 0x37 };
    uint8_t raw[SESSION_HEADER + sizeof(body)];
    uint32_t version;
    f.body = bytes_of(body, sizeof(body));
    session_pack_header(&f, raw);
    memcpy(raw + SESSION_HEADER, body, sizeof(body));
    cr_assert_eq(session_parse(bytes_of(raw, sizeof(raw)), &out, &version), OK);
    cr_assert(out.kind == f.kind && out.seq == 7 && out.ack == 9 && out.connection == 3 && out.body.n == sizeof(body));
    for (size_t bit = 0; bit < 8 * sizeof(raw); bit++) {
        raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
        cr_assert_eq(session_parse(bytes_of(raw, sizeof(raw)), &out, &version), ERR_PARSE, "bit %zu", bit);
        raw[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < sizeof(raw); n++)
        cr_assert_eq(session_parse(bytes_of(raw, n), &out, &version), ERR_PARSE, "cut at %zu", n);
}

Test(session, names_another_version)
{
    struct session_frame f = { .kind = SESSION_ACK, .id = ID, .connection = 1 }, out;
    struct session s;
    uint32_t version;
    uint8_t raw[SESSION_HEADER];
    session_pack_header(&f, raw);
    cr_assert_eq(session_parse(bytes_of(raw, sizeof(raw)), &out, &version), OK);
    cr_assert_eq(version, (uint32_t)PROTOCOL_VERSION);
    /* kinds, bodies and numbers that make no sense, with right sums */
    const struct session_frame nonsense[] = {
        { .kind = 0, .id = ID, .connection = 1 },
        { .kind = SESSION_KINDS, .id = ID, .connection = 1 },
        { .kind = SESSION_DATA, .id = ID, .connection = 1, .seq = 1 },
        { .kind = SESSION_ACK, .id = 0, .connection = 1 },
        { .kind = SESSION_ACK, .id = ID, .connection = 0 },
    };
    for (size_t i = 0; i < sizeof(nonsense) / sizeof(nonsense[0]); i++) {
        session_pack_header(&nonsense[i], raw);
        cr_assert_eq(session_parse(bytes_of(raw, sizeof(raw)), &out, &version), ERR_PARSE, "%zu", i);
    }
    session_init(&s, false, ID, ROOM, 0);
    f.ack = 5; /* acknowledges what was never sent */
    f.kind = SESSION_HELLO;
    cr_assert_eq(session_receive(&s, &f, 0), SESSION_OVER);
    session_fini(&s);
}

Test(session, an_older_connections_messages_are_fenced)
{
    struct pair *x = open_pair(ROOM);
    add(&x->a), add(&x->a);
    flush(&x->a, x->now);
    struct wire *late = mem_alloc(sizeof(*late));
    *late = x->a.out;
    redial(x);
    settle(x); /* both came over the new connection */
    cr_assert_eq(x->b.got, 2u);
    add(&x->a);
    settle(x);
    for (size_t i = 0; i < late->n; i++) take(&x->b, &late->q[(late->head + i) % WIRE], x->now);
    cr_assert_eq(x->b.got, 3u);
    cr_assert_eq(x->b.s.count.stale, 2ull);
    cr_assert_eq(x->b.s.state, SESSION_OPEN);
    /* an older greeting, too: the session stays on the newer connection */
    const struct session_frame hello = { .kind = SESSION_HELLO, .id = ID, .connection = 1 };
    cr_assert_eq(session_receive(&x->b.s, &hello, x->now), SESSION_NOTHING);
    cr_assert_eq(x->b.s.connection, 2u);
    mem_free(late);
    pass(x, 300);
    expect_all(x);
    close_pair(x);
}

Test(session, what_comes_twice_is_dropped_by_its_number)
{
    struct pair *x = open_pair(ROOM);
    for (int i = 0; i < 10; i++) add(&x->a);
    flush(&x->a, x->now);
    for (int i = 0; i < 10; i++) step(&x->a, &x->b, x->now);
    cr_assert_eq(x->b.got, 10u);
    x->b.s.received = 6; /* as if it had not heard of the rest */
    x->b.got = 6;
    redial(x);
    pass(x, 300);
    expect_all(x);
    const struct session_frame again = {
        .kind = SESSION_DATA, .id = ID, .connection = x->a.s.connection, .seq = 3, .body = bytes_of("x", 1)
    };
    cr_assert_eq(session_receive(&x->b.s, &again, x->now), SESSION_NOTHING);
    cr_assert_eq(x->b.s.count.duplicates, 1ull);
    close_pair(x);
}

Test(session, silence_is_noticed_by_the_dialler_and_asked_about_by_the_acceptor)
{
    struct pair *x = open_pair(ROOM);
    pass(x, 10 * SESSION_SILENCE_MS); /* idle ends keep in touch */
    cr_assert_eq(x->a.s.count.connections, 1ull);
    cr_assert_eq(session_tick(&x->a.s, x->now + SESSION_SILENCE_MS - 500), SESSION_NOTHING);
    cr_assert_eq(session_tick(&x->a.s, x->now + SESSION_SILENCE_MS), SESSION_DIAL);
    session_forgive(&x->a.s, x->now + SESSION_SILENCE_MS);
    cr_assert_eq(session_tick(&x->a.s, x->now + SESSION_SILENCE_MS), SESSION_NOTHING);
    struct session_frame f;
    cr_assert_eq(session_tick(&x->b.s, x->now + SESSION_SILENCE_MS), SESSION_NOTHING);
    cr_assert(session_next(&x->b.s, x->now, &f) && f.kind == SESSION_REOPEN);
    settle(x); /* the dialler does so */
    cr_assert_eq(x->a.s.count.connections, 2ull);
    expect_all(x);
    close_pair(x);
}

Test(session, a_ping_is_answered_at_once)
{
    struct pair *x = open_pair(ROOM);
    struct session_frame f;
    cr_assert_not(session_next(&x->b.s, x->now, &f));
    session_ping(&x->b.s);
    flush(&x->b, x->now);
    step(&x->b, &x->a, x->now);
    cr_assert(session_next(&x->a.s, x->now, &f) && f.kind == SESSION_ACK && f.flags == 0);
    session_sent(&x->a.s, &f, x->now);
    cr_assert_not(session_next(&x->a.s, x->now, &f));
    close_pair(x);
}

Test(session, keeps_no_more_than_its_bytes)
{
    struct session s;
    session_init(&s, true, ID, 1000, 0);
    cr_assert_not_null(session_add(&s, 5000)); /* one always fits */
    cr_assert_null(session_add(&s, 1));
    session_dial(&s, 0);
    struct session_frame f;
    while (session_next(&s, 0, &f)) session_sent(&s, &f, 0);
    const struct session_frame ready = { .kind = SESSION_READY, .id = ID, .connection = 1, .ack = 1 };
    cr_assert_eq(session_receive(&s, &ready, 0), SESSION_NOTHING);
    cr_assert_eq(s.bytes, 0u);
    int n = 0;
    while (session_add(&s, 100)) n++;
    cr_assert(n > 0 && s.bytes <= 1000);
    session_fini(&s);
}

Test(session, is_behind_from_half_of_its_bytes_until_a_quarter_is_left)
{
    struct session s;
    session_init(&s, true, ID, 1000, 0);
    session_dial(&s, 0);
    struct session_frame f, ack = { .kind = SESSION_READY, .id = ID, .connection = 1 };
    while (session_next(&s, 0, &f)) session_sent(&s, &f, 0);
    cr_assert_eq(session_receive(&s, &ack, 0), SESSION_NOTHING);
    cr_assert_not(session_is_behind(&s));
    for (int i = 0; i < 6; i++) { /* each costs 100 */
        cr_assert_eq(session_is_behind(&s), false, "%d", i);
        cr_assert_not_null(session_add(&s, 36));
    }
    cr_assert(session_is_behind(&s));
    for (int i = 6; i < 10; i++) cr_assert_not_null(session_add(&s, 36)); /* what must be said still can be */
    while (session_next(&s, 0, &f)) session_sent(&s, &f, 0);
    ack.kind = SESSION_ACK;
    for (ack.ack = 1; ack.ack <= 10; ack.ack++) {
        cr_assert_eq(session_receive(&s, &ack, 0), SESSION_NOTHING);
        cr_assert_eq(session_is_behind(&s), ack.ack < 8, "%d", (int)ack.ack);
    }
    session_fini(&s);
}

Test(session, of_notes_only_the_newest_is_sent)
{
    struct session s;
    struct session_frame f;
    const struct session_frame ready = { .kind = SESSION_READY, .id = ID, .connection = 1 };
    session_init(&s, true, ID, ROOM, 0);
    *session_add_note(&s, 1) = 1;
    *session_add_note(&s, 1) = 2;
    session_dial(&s, 0);
    cr_assert(session_next(&s, 0, &f) && f.kind == SESSION_HELLO && f.flags == SESSION_FRESH);
    session_sent(&s, &f, 0);
    cr_assert_not(session_next(&s, 0, &f)); /* nothing before READY */
    cr_assert_eq(session_receive(&s, &ready, 0), SESSION_NOTHING);
    cr_assert(session_next(&s, 0, &f) && f.kind == SESSION_NOTE && f.body.p[0] == 2);
    session_sent(&s, &f, 0);
    cr_assert_not(session_next(&s, 0, &f));
    cr_assert(session_all_acked(&s));
    session_fini(&s);
}

Test(session, a_lost_answer_to_the_greeting_is_noticed)
{
    struct session s;
    const struct session_frame ack = { .kind = SESSION_ACK, .id = ID, .connection = 1 };
    session_init(&s, true, ID, ROOM, 0);
    session_dial(&s, 0);
    cr_assert_eq(session_receive(&s, &ack, 0), SESSION_DIAL);
    session_fini(&s);
}

/* Random faults on a wire: loss of a frame, a flipped bit, a cut, late frames of older connections, stops of an end. */
static void mangle(struct pair *x, struct wire *w, struct wire *old)
{
    if (w->n == 0) return;
    size_t at = (w->head + (size_t)rand() % w->n) % WIRE;
    switch (rand() % 4) {
    case 0: w->q[at].raw[(size_t)rand() % w->q[at].n] ^= (uint8_t)(1 << rand() % 8); break;
    case 1: /* swallowed, as by a wrong length before it */
        w->head = (w->head + 1) % WIRE;
        w->n--;
        break;
    case 2:
        if (w == &x->a.out) *old = *w;
        break;
    default:
        x->a.dial = true;
        if (rand() % 2) session_lost(&x->b.s);
        break;
    }
}

Test(session, survives_everything_at_random)
{
    struct wire *old = mem_zalloc(sizeof(*old));
    for (unsigned seed = 1; seed <= 60; seed++) {
        struct pair *x = open_pair(ROOM);
        srand(seed);
        for (int round = 0; round < 300; round++) {
            for (int i = rand() % 4; i > 0; i--) add(rand() % 2 ? &x->a : &x->b);
            flush(&x->a, x->now);
            flush(&x->b, x->now);
            if (rand() % 8 == 0) mangle(x, rand() % 2 ? &x->a.out : &x->b.out, old);
            for (int i = rand() % 6; i > 0; i--) {
                step(&x->a, &x->b, x->now);
                step(&x->b, &x->a, x->now);
            }
            if (old->n && rand() % 4 == 0) {
                take(&x->b, &old->q[old->head], x->now);
                old->head = (old->head + 1) % WIRE;
                old->n--;
            }
            if (rand() % 3 == 0) pass(x, 50);
            if (rand() % 50 == 0) x->now += 2000; /* both were stopped */
            if (x->a.dial) redial(x);
        }
        old->n = 0;
        pass(x, 5 * SESSION_SILENCE_MS);
        expect_all(x);
        cr_assert(x->a.made > 100 && x->b.made > 100);
        close_pair(x);
    }
    mem_free(old);
}
