/* share_gpus.h - which of the nodes that start together compute on a GPU, and how much of its memory each may take. */
#ifndef CLI_SHARE_GPUS_H
#define CLI_SHARE_GPUS_H
#include "config/config.h"

/* Whether the node would compute with a backend that has memory of its own, so that it packs weights by itself. */
bool is_on_gpu(const struct config_node *node);
/* serve: a GPU reads prompts and writes answers in one node; two would keep the weights twice, and take turns on it. */
void serve_on_one_gpu(struct config *cfg);
/* Nodes of one GPU that do not name their gpu_memory get equal parts of what the others leave. */
void share_gpus(struct config *cfg);
#endif
