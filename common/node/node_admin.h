/* node_admin.h - /metrics, /live and /ready of a node. */
#ifndef NODE_NODE_ADMIN_H
#define NODE_NODE_ADMIN_H
#include "http/http_server.h"
#include "node/node.h"

struct node_admin;

/* Binds; `node` is borrowed. */
enum status node_admin_open(struct node_admin **out, uv_loop_t *loop, struct node *node, const char *address,
                            struct error *err) MUST_CHECK;
void node_admin_close(struct node_admin *a);                /* NULL is fine */
const char *node_admin_address(const struct node_admin *a); /* host:port as bound */
bool node_is_ready(const struct node *n);
#endif
