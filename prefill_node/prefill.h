/* prefill.h - the role of a prefill node: compute prompts, sample token 0, hand the KV off. */
#ifndef PREFILL_NODE_PREFILL_H
#define PREFILL_NODE_PREFILL_H
#include "node/node.h"

extern const struct node_role prefill_role;
#endif
