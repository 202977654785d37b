/* decode.h - the role of a decode node: reserve blocks, take KV in, decode; prefill for itself when asked to. */
#ifndef DECODE_NODE_DECODE_H
#define DECODE_NODE_DECODE_H
#include "node/node.h"

extern const struct node_role decode_role;
#endif
