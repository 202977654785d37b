/* kv_block.h - the size of a kv block.  Caches, block tables, prefix hashes, prefill chunks and frames on the wire all
 * count in it, so it has one name.  A power of two; part of the protocol (Geometry.block_tokens). */
#ifndef BASE_KV_BLOCK_H
#define BASE_KV_BLOCK_H

#define KV_BLOCK_TOKENS 64 /* tokens of one sequence */

#endif
