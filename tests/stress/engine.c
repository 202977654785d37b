/* stress/engine: threads submit, cancel and read the load at once; every sequence ends once, every block comes back. */
#include "engine/engine.h"

#include "helpers/tiny_model.h"
#include "model/model.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define POSTERS 3
#define EACH    40
#define TOTAL   (POSTERS * EACH)

static struct engine *engine;
static atomic_uint n_done[TOTAL], n_ended;

static void on_event(void *ctx, const struct engine_event *ev)
{
    if (ev->kind != ENGINE_DONE) return;
    atomic_fetch_add(&n_done[ev->key.lo], 1);
    atomic_fetch_add(&n_ended, 1);
}

static void submit(uint64_t id)
{
    int32_t tokens[100];
    uint32_t n = 1 + (uint32_t)(id * 37 % 100);
    for (uint32_t i = 0; i < n; i++) tokens[i] = (int32_t)((id % 9 + i * 3) % 160); /* some begin alike */
    struct seq_request r = { .key = { 1, id, 1 },
                             .mode = id % 3 == 0 ? ENGINE_RESERVE : ENGINE_GENERATE,
                             .tokens = tokens,
                             .n_tokens = n,
                             .n_prompt = n,
                             .sampling = { .temperature = 1.0f,
                                           .top_p = 0.9f,
                                           .repetition_penalty = 1.0f,
                                           .seed = id,
                                           .max_tokens = 10,
                                           .n_logprobs = -1,
                                           .n_prompt_logprobs = -1 } };
    while (engine_submit(engine, &r) != OK) sched_yield();
}

static void *post_all(void *arg)
{
    uint64_t first = *(const uint64_t *)arg;
    for (uint64_t id = first; id < first + EACH; id++) {
        const struct seq_key key = { 1, id, 1 };
        struct engine_load load;
        submit(id);
        engine_load(engine, &load);
        if (id % 3 != 0 && id % 5 != 0) continue;
        while ((id % 2 && id % 3 == 0 ? engine_start_prefill(engine, &key) : engine_cancel(engine, &key)) != OK)
            sched_yield();
        if (id % 3 == 0) /* a start that came before its reservation is ignored: end it either way */
            while (engine_cancel(engine, &key) != OK) sched_yield();
    }
    return NULL;
}

static int run(const char *path, struct backend *backend)
{
    struct model_options mo = { .path = path, .backend = backend, .max_batch_tokens = 128, .weights_fd = -1 };
    struct engine_options eo = { .max_seqs = 8,
                                 .max_batch_tokens = 128,
                                 .chunk_tokens = 64,
                                 .max_context = 1024,
                                 .max_commands = 16,
                                 .prefix_cache = true,
                                 .tier_path = "/tmp",
                                 .on_event = on_event };
    pthread_t threads[POSTERS];
    uint64_t firsts[POSTERS];
    if (model_open(&eo.model, &mo, NULL) != OK || model_kv_create(&eo.kv, eo.model, 12, NULL) != OK) return 1;
    eo.tier_bytes = 11 * model_kv_block_bytes(eo.model); /* two blocks in RAM, the others in the file or its queue */
    eo.tier_disk_bytes = 12 * model_kv_block_bytes(eo.model);
    if (engine_create(&engine, &eo, NULL) != OK) return 1;
    for (int p = 0; p < POSTERS; p++) {
        firsts[p] = (uint64_t)p * EACH;
        if (pthread_create(&threads[p], NULL, post_all, &firsts[p]) != 0) return 1;
    }
    for (int p = 0; p < POSTERS; p++) pthread_join(threads[p], NULL);
    while (atomic_load(&n_ended) < TOTAL) usleep(1000);
    struct engine_load load;
    engine_load(engine, &load);
    int bad = load.blocks[KV_FREE] + load.blocks[KV_CACHED] != 12;
    engine_destroy(engine);
    for (int i = 0; i < TOTAL; i++) bad |= atomic_load(&n_done[i]) != 1;
    printf("%d sequences, %s\n", TOTAL, bad ? "not all ended once with all blocks back" : "each ended once");
    return bad;
}

int main(void)
{
    struct tiny_options tiny = tiny_defaults();
    char *path = tiny_write(&tiny);
    struct model_info info;
    struct backend *backend = NULL;
    if (model_read_info(&info, path, NULL) != OK) return 1;
    struct backend_limits lim = model_limits(&info, 128, 1024);
    if (backend_open(&backend, "cpu", &(struct backend_options){ .n_threads = 2, .limits = lim }, NULL) != OK) return 1;
    int bad = run(path, backend);
    backend_close(backend);
    tiny_remove(path);
    return bad;
}
