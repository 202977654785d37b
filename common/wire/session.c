/* session.c - one end of a control link: messages that outlive connections. */
#include "wire/session.h"

#include "base/mem.h"
#include "wire/codec.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#define MESSAGE_COST 64 /* bookkeeping of one message, in bytes */

/* ---- frames ---- */

/* 0 "BTN", version; 4 kind, flags, 0, 0; 8 id; 16 connection, 0; 24 seq; 32 ack; 40 sum.  Little-endian. */
static const uint8_t magic[3] = { 'B', 'T', 'N' };

static void put_u32(uint8_t *at, uint32_t v)
{
    memcpy(at, &v, sizeof(v));
}
static void put_u64(uint8_t *at, uint64_t v)
{
    memcpy(at, &v, sizeof(v));
}
static uint32_t get_u32(const uint8_t *at)
{
    uint32_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}
static uint64_t get_u64(const uint8_t *at)
{
    uint64_t v;
    memcpy(&v, at, sizeof(v));
    return v;
}

static uint64_t sum_of(const uint8_t *header, struct bytes body)
{
    return XXH3_64bits_withSeed(body.n ? (const void *)body.p : "", body.n, XXH3_64bits(header, SESSION_HEADER - 8));
}

void session_pack_header(const struct session_frame *f, uint8_t out[SESSION_HEADER])
{
    memset(out, 0, SESSION_HEADER);
    memcpy(out, magic, sizeof(magic));
    out[3] = PROTOCOL_VERSION;
    out[4] = (uint8_t)f->kind;
    out[5] = f->flags;
    put_u64(out + 8, f->id);
    put_u32(out + 16, f->connection);
    put_u64(out + 24, f->seq);
    put_u64(out + 32, f->ack);
    put_u64(out + 40, sum_of(out, f->body));
}

/* What a right sum does not say. */
static bool makes_sense(const struct session_frame *f)
{
    bool has_body = f->kind == SESSION_DATA || f->kind == SESSION_NOTE;
    if (f->kind < SESSION_HELLO || f->kind >= SESSION_KINDS || has_body != (f->body.n > 0)) return false;
    if (f->kind == SESSION_REOPEN && f->id == 0) return true;
    if (f->kind == SESSION_DATA && f->seq == 0) return false;
    return f->id != 0 && f->connection != 0;
}

enum status session_parse(struct bytes raw, struct session_frame *out, uint32_t *version)
{
    *version = 0;
    if (raw.n < SESSION_HEADER || memcmp(raw.p, magic, sizeof(magic)) != 0) return ERR_PARSE;
    *out = (struct session_frame){ .kind = (enum session_kind)raw.p[4],
                                   .flags = raw.p[5],
                                   .id = get_u64(raw.p + 8),
                                   .connection = get_u32(raw.p + 16),
                                   .seq = get_u64(raw.p + 24),
                                   .ack = get_u64(raw.p + 32),
                                   .body = bytes_of(raw.p + SESSION_HEADER, raw.n - SESSION_HEADER) };
    if (get_u64(raw.p + 40) != sum_of(raw.p, out->body)) return ERR_PARSE;
    *version = raw.p[3];
    if (*version != PROTOCOL_VERSION) return ERR_MISMATCH;
    return makes_sense(out) ? OK : ERR_PARSE;
}

/* ---- what is kept ---- */

void session_init(struct session *s, bool dials, uint64_t id, size_t max_bytes, uint64_t now_ms)
{
    *s = (struct session){ .dials = dials, .id = id, .max_bytes = max_bytes, .next = 1 };
    s->heard_ms = s->spoke_ms = now_ms;
}

static struct session_message *kept(const struct session *s, uint64_t seq)
{
    return &s->ring[(s->head + (seq - s->acked - 1)) % s->cap];
}

static uint64_t last_added(const struct session *s)
{
    return s->acked + s->n;
}

static void weigh(struct session *s)
{
    s->behind = s->bytes > (s->behind ? s->max_bytes / 4 : s->max_bytes / 2);
}

static void drop_first(struct session *s)
{
    struct session_message *m = &s->ring[s->head];
    s->bytes -= m->n + MESSAGE_COST;
    mem_free(m->p);
    *m = (struct session_message){ NULL, 0 };
    s->head = (s->head + 1) % s->cap;
    s->n--;
    s->acked++;
    weigh(s);
}

void session_fini(struct session *s)
{
    while (s->n) drop_first(s);
    mem_free(s->ring);
    mem_free(s->note.p);
    *s = (struct session){ 0 };
}

static void grow(struct session *s)
{
    size_t cap = s->cap ? 2 * s->cap : 16;
    struct session_message *ring = mem_array(cap, sizeof(*ring));
    for (size_t i = 0; i < s->n; i++) ring[i] = s->ring[(s->head + i) % s->cap];
    mem_free(s->ring);
    s->ring = ring;
    s->cap = cap;
    s->head = 0;
}

uint8_t *session_add(struct session *s, size_t n)
{
    void *p;
    assert(n > 0);
    if (s->n && (s->bytes >= s->max_bytes || n + MESSAGE_COST > s->max_bytes - s->bytes)) return NULL;
    if (mem_try_array(&p, n, 1) != OK) return NULL;
    if (s->n == s->cap) grow(s);
    s->ring[(s->head + s->n) % s->cap] = (struct session_message){ p, n };
    s->n++;
    s->bytes += n + MESSAGE_COST;
    weigh(s);
    return p;
}

uint8_t *session_add_note(struct session *s, size_t n)
{
    void *p;
    assert(n > 0);
    if (mem_try_array(&p, n, 1) != OK) return NULL;
    mem_free(s->note.p);
    s->note = (struct session_message){ p, n };
    return p;
}

bool session_is_behind(const struct session *s)
{
    return s->behind;
}

void session_ping(struct session *s)
{
    s->ping_due = true;
}

bool session_all_acked(const struct session *s)
{
    return s->n == 0;
}

/* ---- connections ---- */

/* Whatever was due on the old connection is not on the new one; the peer's ack says where to go on. */
static void begin_connection(struct session *s, uint64_t now_ms)
{
    s->hello_due = s->ready_due = s->reopen_due = s->answer_due = false;
    s->heard_ms = s->spoke_ms = now_ms;
    s->next = s->acked + 1;
    s->count.connections++;
}

void session_dial(struct session *s, uint64_t now_ms)
{
    assert(s->dials);
    begin_connection(s, now_ms);
    s->connection++;
    s->state = SESSION_OPENING;
    s->hello_due = true;
}

void session_lost(struct session *s)
{
    s->state = SESSION_DOWN;
}

void session_forgive(struct session *s, uint64_t now_ms)
{
    s->heard_ms = now_ms;
}

static bool take_ack(struct session *s, uint64_t ack)
{
    if (ack > last_added(s)) return false;
    while (s->acked < ack) drop_first(s);
    if (s->next <= s->acked) s->next = s->acked + 1;
    return true;
}

static enum session_verdict on_hello(struct session *s, const struct session_frame *f, uint64_t now_ms)
{
    if (f->connection <= s->connection) {
        s->count.stale++;
        return SESSION_NOTHING;
    }
    if (f->ack < s->acked || !take_ack(s, f->ack)) return SESSION_OVER;
    begin_connection(s, now_ms);
    s->connection = f->connection;
    s->state = SESSION_OPEN;
    s->ready_due = true;
    return SESSION_TAKEN;
}

static enum session_verdict on_ready(struct session *s)
{
    if (s->state != SESSION_OPENING) return SESSION_NOTHING;
    s->state = SESSION_OPEN;
    s->greeted = true;
    s->next = s->acked + 1;
    return SESSION_NOTHING;
}

static enum session_verdict broken(struct session *s)
{
    s->count.gaps++;
    if (s->dials) return SESSION_DIAL;
    s->state = SESSION_BROKEN;
    s->reopen_due = true;
    return SESSION_NOTHING;
}

static enum session_verdict on_data(struct session *s, const struct session_frame *f, uint64_t now_ms)
{
    if (f->seq > s->received + 1) return broken(s);
    if (s->received == s->told) s->unacked_ms = now_ms;
    if (f->seq <= s->received) {
        s->count.duplicates++;
        s->answer_due = true;
        return SESSION_NOTHING;
    }
    s->received++;
    return SESSION_DELIVER;
}

enum session_verdict session_receive(struct session *s, const struct session_frame *f, uint64_t now_ms)
{
    if (f->id != s->id) return SESSION_NOTHING;
    if (!s->dials && f->kind == SESSION_HELLO) return on_hello(s, f, now_ms);
    if (f->connection != s->connection || s->state == SESSION_DOWN) {
        s->count.stale++;
        return SESSION_NOTHING;
    }
    s->heard_ms = now_ms;
    if (f->kind == SESSION_RESET) return SESSION_OVER;
    if (f->kind == SESSION_REOPEN) return s->dials ? SESSION_DIAL : SESSION_NOTHING;
    if (s->state == SESSION_BROKEN) return SESSION_NOTHING;
    if (s->state == SESSION_OPENING && f->kind != SESSION_READY) return broken(s); /* READY goes first */
    if (!take_ack(s, f->ack)) return SESSION_OVER;
    switch (f->kind) {
    case SESSION_READY: return s->dials ? on_ready(s) : SESSION_NOTHING;
    case SESSION_DATA: return on_data(s, f, now_ms);
    case SESSION_NOTE: return f->seq > s->received ? broken(s) : SESSION_DELIVER;
    case SESSION_ACK:
        if (f->seq > s->received) return broken(s);
        if (f->flags & SESSION_PING) s->answer_due = true;
        return SESSION_NOTHING;
    default: return SESSION_NOTHING;
    }
}

enum session_verdict session_tick(struct session *s, uint64_t now_ms)
{
    bool silent = now_ms >= s->heard_ms + SESSION_SILENCE_MS;
    if (s->dials) return silent && s->state != SESSION_DOWN ? SESSION_DIAL : SESSION_NOTHING;
    if (silent && s->state == SESSION_OPEN && now_ms >= s->asked_ms + SESSION_SILENCE_MS) {
        s->reopen_due = true;
        s->asked_ms = now_ms;
    }
    return SESSION_NOTHING;
}

/* ---- what to send ---- */

static bool ack_due(const struct session *s, uint64_t now_ms)
{
    uint64_t waiting = s->received - s->told;
    if (s->answer_due || s->ping_due || now_ms >= s->spoke_ms + SESSION_KEEPALIVE_MS) return true;
    return waiting >= SESSION_ACK_MESSAGES || (waiting && now_ms >= s->unacked_ms + SESSION_ACK_MS);
}

bool session_next(const struct session *s, uint64_t now_ms, struct session_frame *out)
{
    *out = (struct session_frame){ .id = s->id, .connection = s->connection, .seq = s->next - 1, .ack = s->received };
    if (s->state == SESSION_DOWN) return false;
    if (s->reopen_due) {
        out->kind = SESSION_REOPEN;
    } else if (s->hello_due) {
        out->kind = SESSION_HELLO;
        out->flags = s->greeted ? 0 : SESSION_FRESH;
    } else if (s->state != SESSION_OPEN) {
        return false;
    } else if (s->ready_due) {
        out->kind = SESSION_READY;
    } else if (s->next <= last_added(s)) {
        const struct session_message *m = kept(s, s->next);
        out->kind = SESSION_DATA;
        out->seq = s->next;
        out->body = bytes_of(m->p, m->n);
    } else if (s->note.p) {
        out->kind = SESSION_NOTE;
        out->body = bytes_of(s->note.p, s->note.n);
    } else if (ack_due(s, now_ms)) {
        out->kind = SESSION_ACK;
        out->flags = s->ping_due ? SESSION_PING : 0;
    } else {
        return false;
    }
    return true;
}

void session_sent(struct session *s, const struct session_frame *f, uint64_t now_ms)
{
    s->spoke_ms = now_ms;
    switch (f->kind) {
    case SESSION_REOPEN: s->reopen_due = false; return;
    case SESSION_HELLO: s->hello_due = false; break;
    case SESSION_READY: s->ready_due = false; break;
    case SESSION_DATA: s->next++; break;
    case SESSION_NOTE:
        mem_free(s->note.p);
        s->note = (struct session_message){ NULL, 0 };
        break;
    default: s->ping_due = false; break;
    }
    s->told = f->ack;
    s->answer_due = false;
}
