/* launch.h - a whole cluster on this host: children, their order, signals, their end. */
#ifndef CLI_LAUNCH_H
#define CLI_LAUNCH_H
#include "base/error.h"

struct config;

/* Starts the coordinator, packs each model's weights once for all nodes, starts the nodes, prints "ready
 * http://HOST:PORT" on standard output, and stays until SIGTERM, SIGINT (drain, then stop; a second one stops at
 * once) or the coordinator's end.  Returns the exit code. */
int launch_cluster(const struct config *cfg);
#endif
