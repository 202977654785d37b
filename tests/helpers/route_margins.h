/* route_margins.h - a backend that notes how close rows' choices between experts are. */
#ifndef HELPERS_ROUTE_MARGINS_H
#define HELPERS_ROUTE_MARGINS_H
#include "compute/backend.h"

/* From now on margins[i] becomes the smallest gap, over all routers that row i of a batch goes through, between the
 * last expert, or group of experts, that is chosen and the first that is not: in what they are chosen by.
 * margins[n_rows] are the caller's, and last as long as the backend; they begin as infinity. */
void route_margins_install(struct backend *cpu, float *margins, uint32_t n_rows);
#endif
