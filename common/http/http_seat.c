/* http_seat.c - who is let in: the bound on connections, the one for each address, and the reserve for probes.
 *
 * A connection past the bounds gets a seat of the reserve.  It keeps it if its request line names one of the reserved
 * paths, and is refused otherwise; the oldest that has named none yet makes room for the next one. */
#include "http/http_internal.h"

#include <string.h>

static bool has_paths(const struct http_server *s)
{
    return s->limits.reserved_paths != NULL;
}

bool http_seat_is_reserved_path(const struct http_server *s, const char *path)
{
    const char *const *known = s->limits.reserved_paths;
    for (; known && *known; known++)
        if (strcmp(*known, path) == 0) return true;
    return false;
}

bool http_seat_is_short(const struct http_server *s)
{
    return s->n_reserve > 0 || (uint64_t)s->n_seated * 8 >= (uint64_t)s->limits.max_connections * 7;
}

static void leave_reserve(struct http_server *s, const struct http_conn *c)
{
    uint32_t i = 0;
    while (s->reserve[i] != c) i++;
    s->n_reserve--;
    memmove(&s->reserve[i], &s->reserve[i + 1], (s->n_reserve - i) * sizeof(s->reserve[0]));
}

void http_seat_give(struct http_conn *c)
{
    struct http_server *s = c->server;
    if (c->seat == SEAT_HOUSE) s->n_seated--;
    if (c->seat == SEAT_RESERVE) leave_reserve(s, c);
    c->seat = SEAT_NONE;
    http_peer_give(&s->peers, c->peer);
    c->peer = NULL;
}

/* Whoever waits longest without an answer under way goes first. */
static bool make_room(struct http_server *s)
{
    for (uint32_t i = 0; i < s->n_reserve; i++) {
        if (s->reserve[i]->state == CONN_BUSY) continue;
        http_conn_close(s->reserve[i]);
        return true;
    }
    return false;
}

static bool take_reserve(struct http_conn *c)
{
    struct http_server *s = c->server;
    if (s->n_reserve == HTTP_RESERVE && !make_room(s)) return false;
    s->reserve[s->n_reserve++] = c;
    c->seat = SEAT_RESERVE;
    return true;
}

/* Finds out who is at the other end; *counts: whether its connections are bounded by address. */
static bool address_of(struct http_conn *c, bool *counts)
{
    struct sockaddr_storage name;
    int len = sizeof(name);
    *counts = false;
    c->is_front = true;
    if (c->listener->is_unix) return true; /* whoever may open its file */
    if (uv_tcp_getpeername(&c->u.tcp, (struct sockaddr *)&name, &len) != 0) return false;
    if (!http_address_of(&c->address, (struct sockaddr *)&name)) return false;
    c->is_front = http_address_is_loopback(&c->address) || http_trust_has(&c->server->limits.trusted, &c->address);
    *counts = !c->is_front;
    return true;
}

static bool count_address(struct http_conn *c)
{
    struct http_server *s = c->server;
    uint32_t max = s->limits.max_per_address;
    if (max == 0) return true;
    c->peer = http_peer_take(&s->peers, &c->address, max);
    return c->peer != NULL;
}

enum http_entry http_seat_take(struct http_conn *c)
{
    struct http_server *s = c->server;
    bool counts;
    if (!address_of(c, &counts)) return HTTP_ENTRY_GONE;
    bool crowd = counts && !count_address(c);
    bool full = s->n_seated >= s->limits.max_connections;
    if (!crowd && !full && !c->listener->reserved) {
        s->n_seated++;
        c->seat = SEAT_HOUSE;
        return HTTP_ENTRY_FINE;
    }
    if (!take_reserve(c)) return HTTP_ENTRY_GONE;
    c->is_crowd = crowd;
    return has_paths(s) ? HTTP_ENTRY_FINE : HTTP_ENTRY_REFUSED;
}

bool http_seat_proxied(struct http_conn *c, const struct http_address *client)
{
    c->address = *client;
    c->is_front = false;
    return count_address(c);
}

bool http_seat_forwarded(struct http_exchange *x)
{
    struct http_server *s = x->conn->server;
    const char *field = http_request_last_field(&x->req, "x-forwarded-for");
    struct http_address client;
    if (!x->conn->is_front || !field || s->limits.max_per_address == 0) return true;
    if (!http_address_forwarded(&client, field, &s->limits.trusted)) return true;
    x->peer = http_peer_take(&s->peers, &client, s->limits.max_per_address);
    return x->peer != NULL;
}
