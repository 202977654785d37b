/* kv_links.h - a prefill node's links to decode nodes: opened when a coordinator tells of one, kept open, and opened
 * anew after a loss, with a growing pause.
 *
 * One thread owns them; only kv_links_told_copy() and _free() may be called from others. */
#ifndef NODE_KV_LINKS_H
#define NODE_KV_LINKS_H
#include "node/kv_link.h"

#define KV_LINKS_MAX 128

struct kv_links;

struct kv_links_peer {
    const char *node;
    const char *const *endpoints; /* one per lane */
    uint32_t n_endpoints;
};

struct kv_links_options {
    const char *node; /* of this process; borrowed, as is geometry */
    uint64_t incarnation;
    const struct cache_geometry *geometry;
    bool (*in_use)(void *ctx, const struct kv_link *l); /* has transfers: must not be closed to make room */
    void (*on_lost)(void *ctx, struct kv_link *l);      /* before it is closed */
    void *ctx;
};

struct kv_links *kv_links_create(const struct kv_links_options *opt);
void kv_links_destroy(struct kv_links *ls); /* NULL is fine */

/* All decode nodes that one coordinator knows now.  Peers without usable lanes are left out. */
struct kv_links_told;
struct kv_links_told *kv_links_told_copy(uint64_t coordinator, const struct kv_links_peer *peers, uint32_t n);
void kv_links_told_free(struct kv_links_told *t); /* NULL is fine */
/* Takes `t` in place of what that coordinator has told before. */
void kv_links_want(struct kv_links *ls, struct kv_links_told *t);

/* The link to these endpoints, opened if there is none. */
enum status kv_links_attach(struct kv_links *ls, const struct kv_links_peer *peer, struct kv_link **out,
                            struct error *err) MUST_CHECK;
/* Closes those that are lost or silent, opens those that are wanted and due.  `late_us`: it is called so much too late,
 * since this process stood still; then nobody is judged by his silence. */
void kv_links_tend(struct kv_links *ls, uint64_t late_us);
/* Until kv_links_tend() has something to do; -1: nothing is due. */
int kv_links_wait_ms(const struct kv_links *ls);
uint32_t kv_links_count(const struct kv_links *ls);
struct kv_link *kv_links_at(struct kv_links *ls, uint32_t i);
uint32_t kv_links_ready(const struct kv_links *ls); /* of them, greeted */
#endif
