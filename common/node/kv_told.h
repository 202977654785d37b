/* kv_told.h - the sending processes that coordinators have told a decode node of.  Any thread. */
#ifndef NODE_KV_TOLD_H
#define NODE_KV_TOLD_H
#include <stdbool.h>
#include <stdint.h>

#define KV_TOLD_MAX 4096 /* over all coordinators */

struct kv_told;

struct kv_told *kv_told_create(void);
void kv_told_destroy(struct kv_told *t); /* NULL is fine */
/* What one coordinator says now, in place of what it said before; n 0 forgets it.  What is past KV_TOLD_MAX stays out.
 */
void kv_told_set(struct kv_told *t, uint64_t coordinator, const uint64_t *incarnations, uint32_t n);
bool kv_told_has(struct kv_told *t, uint64_t incarnation);
#endif
