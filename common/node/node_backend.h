/* node_backend.h - what a node computes with: the CPU, or a GPU. */
#ifndef NODE_NODE_BACKEND_H
#define NODE_NODE_BACKEND_H
#include "config/config.h"

struct model_info;
struct ranks;

/* Opens the node's ranks, each with the backend that `backend` stands for on this machine; a log line says which, and
 * where `auto` came to the CPU, why.  Sizes are those of the model and of max_context.  Caller owns. */
enum status node_backend_open(struct ranks **out, const struct config_node *self, const struct model_info *info,
                              uint32_t max_context, struct error *err) MUST_CHECK;
/* Compute threads of the node's CPU. */
uint32_t node_threads(const struct config_node *self);
#endif
