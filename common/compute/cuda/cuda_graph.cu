/* cuda_graph.cu - steps that come again are enqueued as one CUDA graph.
 *
 * A shape that is seen for the first time runs as it is: kernels are loaded when they first run, which a capture does
 * not like.  The second time it is captured, and from then on replayed.  Launches depend on a step's shape alone, and
 * what changes lies in the step's buffer on the device (cuda_step.cu); where such a buffer moves, all graphs are
 * dropped. */
#include "compute/cuda/cuda_internal.h"

#define GRAPH_ROWS 256 /* more rows hide their launches */

static bool is_same(const struct graph_key *a, const struct graph_key *b)
{
    return a->owner == b->owner && a->stream == b->stream && a->part == b->part && a->n_rows == b->n_rows &&
           a->n_logits == b->n_logits;
}

/* The graph of that key, or the place of the one that was used longest ago, made empty. */
static struct step_graph *graph_of(struct cuda_graphs *g, const struct graph_key *key)
{
    struct step_graph *oldest = &g->graphs[0];
    for (uint32_t i = 0; i < GRAPHS_KEPT; i++) {
        struct step_graph *at = &g->graphs[i];
        if (at->last_use && is_same(&at->key, key)) return at;
        if (at->last_use < oldest->last_use) oldest = at;
    }
    if (oldest->exec) cudaGraphExecDestroy(oldest->exec);
    *oldest = step_graph{};
    oldest->key = *key;
    return oldest;
}

void cuda_graphs_drop(struct cuda_backend *b)
{
    for (uint32_t i = 0; i < GRAPHS_KEPT; i++)
        if (b->graphs.graphs[i].exec) cudaGraphExecDestroy(b->graphs.graphs[i].exec);
    b->graphs = cuda_graphs{};
}

enum status cuda_replay(struct backend *backend, struct stream *s, const struct step *step, const void *owner,
                        uint32_t part, bool *done)
{
    struct cuda_backend *b = cuda_of(backend);
    const cudaStream_t stream = cu_stream(backend, s);
    const struct graph_key key = { owner, stream, part, step->batch->n_rows, step->n_logits };
    *done = false;
    b->graphs.recording = NULL;
    if (key.n_rows > GRAPH_ROWS) return OK;
    struct step_graph *g = graph_of(&b->graphs, &key);
    const bool is_new = g->last_use == 0;
    g->last_use = ++b->graphs.n_uses;
    if (is_new) return OK;
    if (g->exec) {
        *done = true;
        return cuda_check(backend, cudaGraphLaunch(g->exec, stream), "cudaGraphLaunch");
    }
    b->graphs.recording = g;
    return cuda_check(backend, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                      "cudaStreamBeginCapture");
}

enum status cuda_recorded(struct backend *backend, struct stream *s, bool ok)
{
    struct cuda_backend *b = cuda_of(backend);
    struct step_graph *g = b->graphs.recording;
    if (!g) return OK;
    cudaGraph_t graph = NULL;
    b->graphs.recording = NULL;
    cudaError_t e = cudaStreamEndCapture(cu_stream(backend, s), &graph);
    if (e == cudaSuccess && ok) e = cudaGraphInstantiate(&g->exec, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (e == cudaSuccess && ok) e = cudaGraphLaunch(g->exec, cu_stream(backend, s));
    return cuda_check(backend, e, "a step's graph");
}
