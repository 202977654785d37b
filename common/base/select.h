/* select.h - picks the heaviest of many valued ids without sorting them. */
#ifndef BASE_SELECT_H
#define BASE_SELECT_H
#include <stdbool.h>
#include <stdint.h>

struct candidate {
    float value; /* not NaN; select_mass() wants >= 0 */
    int32_t id;  /* ties: the lower id is the heavier one */
};

static inline bool is_heavier(const struct candidate *a, const struct candidate *b)
{
    return a->value > b->value || (a->value == b->value && a->id < b->id);
}

/* Moves the k heaviest of c[0..n) to the front (in no order) and returns min(k, n); the others may be lost. */
uint32_t select_top(struct candidate *c, uint32_t n, uint32_t k);
/* Moves the fewest heaviest whose values sum to at least `mass` to the front and returns how many: at least one
 * if n > 0; the others may be lost. */
uint32_t select_mass(struct candidate *c, uint32_t n, double mass);
/* Heaviest first. */
void select_sort(struct candidate *c, uint32_t n);
#endif
