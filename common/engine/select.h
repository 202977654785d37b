/* select.h - picks the heaviest of many weighted ids without sorting them. */
#ifndef ENGINE_SELECT_H
#define ENGINE_SELECT_H
#include <stdint.h>

struct candidate {
    float weight; /* not NaN; select_mass() wants >= 0 */
    int32_t id;   /* ties: the lower id is the heavier one */
};

/* Moves the k heaviest of c[0..n) to the front (in no order) and returns min(k, n). */
uint32_t select_top(struct candidate *c, uint32_t n, uint32_t k);
/* Moves the fewest heaviest whose weights sum to at least `mass` to the front and returns how many: at least one
 * if n > 0. */
uint32_t select_mass(struct candidate *c, uint32_t n, double mass);
/* Heaviest first. */
void select_sort(struct candidate *c, uint32_t n);
#endif
