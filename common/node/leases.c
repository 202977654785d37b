/* leases.c - whose work a node still keeps after their sessions have ended, and until when. */
#include "node/leases.h"

bool leases_add(struct leases *ls, uint64_t incarnation, uint64_t until_ms)
{
    for (int i = 0; i < LEASES_MAX; i++) {
        if (ls->items[i].incarnation) continue;
        ls->items[i] = (struct lease){ incarnation, until_ms };
        return true;
    }
    return false;
}

void leases_shorten(struct leases *ls, uint64_t until_ms)
{
    for (int i = 0; i < LEASES_MAX; i++)
        if (ls->items[i].until_ms > until_ms) ls->items[i].until_ms = until_ms;
}

void leases_extend(struct leases *ls, uint64_t ms)
{
    for (int i = 0; i < LEASES_MAX; i++) ls->items[i].until_ms += ms;
}

bool leases_take(struct leases *ls, uint64_t incarnation)
{
    for (int i = 0; i < LEASES_MAX; i++) {
        if (ls->items[i].incarnation != incarnation) continue;
        ls->items[i].incarnation = 0;
        return true;
    }
    return false;
}

uint64_t leases_take_expired(struct leases *ls, uint64_t now_ms)
{
    for (int i = 0; i < LEASES_MAX; i++) {
        uint64_t incarnation = ls->items[i].incarnation;
        if (!incarnation || now_ms < ls->items[i].until_ms) continue;
        ls->items[i].incarnation = 0;
        return incarnation;
    }
    return 0;
}
