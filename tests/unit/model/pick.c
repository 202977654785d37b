/* model_pick, model_weights, model_hidden: what leaves a model beside whole logits agrees with these. */
#include "base/mem.h"
#include "helpers/deferred_backend.h"
#include "helpers/tiny_model.h"
#include "model/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#define N_ROWS 40

struct rig {
    char *path;
    struct backend *backend;
    struct model *model;
    struct kv_store *kv;
    uint32_t n_vocab, d_model;
};

static struct rig rig_of(bool deferred)
{
    struct rig r = { 0 };
    struct tiny_options o = tiny_defaults();
    struct model_info info;
    struct error err = { 0 };
    o.type = DTYPE_Q8_0;
    r.path = tiny_write(&o);
    cr_assert_eq(model_read_info(&info, r.path, &err), OK, "%s", err.text);
    const struct backend_options bo = { .n_threads = 2, .limits = model_limits(&info, 64, 256) };
    cr_assert_eq(backend_open(&r.backend, "cpu", &bo, &err), OK, "%s", err.text);
    if (deferred) r.backend = deferred_backend_create(r.backend);
    const struct model_options mo = { .path = r.path,
                                      .backend = r.backend,
                                      .rotate = "auto",
                                      .max_batch_tokens = 64,
                                      .max_context = 256,
                                      .weights_fd = -1 };
    cr_assert_eq(model_open(&r.model, &mo, &err), OK, "%s", err.text);
    cr_assert_eq(model_kv_create(&r.kv, r.model, 4, &err), OK, "%s", err.text);
    r.n_vocab = info.n_vocab;
    r.d_model = info.d_model;
    return r;
}

static void rig_free(struct rig *r)
{
    kv_store_destroy(r->kv);
    model_close(r->model);
    backend_close(r->backend);
    tiny_remove(r->path);
}

/* A batch of N_ROWS rows, all of which are logit rows. */
static void forward(struct rig *r)
{
    int32_t tokens[N_ROWS];
    const uint32_t blocks[1] = { 2 };
    for (uint32_t i = 0; i < N_ROWS; i++) tokens[i] = (int32_t)((i * 37u + 5u) % r->n_vocab);
    const struct batch_seq seq = { 0, N_ROWS, 0, blocks, 1, .n_logits = N_ROWS };
    const struct batch b = { N_ROWS, tokens, &seq, 1 };
    cr_assert_eq(model_forward(r->model, &b, r->kv, NULL, NULL), OK);
}

Test(model_pick, picks_from_the_logits)
{
    for (int deferred = 0; deferred < 2; deferred++) {
        static struct picked got[3];
        struct rig r = rig_of(deferred);
        float *logits, *want = mem_array(3 * (size_t)r.n_vocab, sizeof(float)), row[1024];
        const float *weights;
        const int32_t ids[1] = { 5 };
        const float bias[1] = { 3.0f };
        struct pick_row asks[3];
        for (uint32_t i = 0; i < 3; i++)
            asks[i] = (struct pick_row){ .repetition = 1.0f, .want = 2 + i, .temperature = 0.5f, .ask = (int32_t)i };
        asks[1].bias_ids = ids;
        asks[1].bias = bias;
        asks[1].n_bias = 1;
        forward(&r);
        cr_assert_eq(model_logits(r.model, 33, 3, &logits), OK);
        memcpy(want, logits, 3 * (size_t)r.n_vocab * sizeof(float));
        want[r.n_vocab + 5] += 3.0f;
        cr_assert_eq(model_pick(r.model, 33, 3, asks, got), OK);
        for (uint32_t i = 0; i < 3; i++) {
            const float *x = want + i * r.n_vocab;
            cr_assert(got[i].finite && got[i].n == 2 + i && got[i].asked == x[i]);
            for (uint32_t id = 0; id < r.n_vocab; id++) cr_assert_leq(x[id], got[i].best[0].value);
            cr_assert_eq(got[i].best[0].value, x[got[i].best[0].id]);
        }
        const float top = got[1].best[0].value;
        cr_assert_leq(r.n_vocab, 1024);
        cr_assert_eq(model_weights(r.model, 1, top, 0.5f, row, &weights), OK);
        cr_assert_eq(memcmp(row, want + r.n_vocab, r.n_vocab * sizeof(float)), 0, "the row as it was picked from");
        for (uint32_t id = 0; id < r.n_vocab; id++)
            cr_assert_float_eq(weights[id], expf((row[id] - top) / 0.5f), 1e-5f);
        for (uint32_t i = 0; i < got[1].n; i++) cr_assert_eq(weights[got[1].best[i].id], got[1].weight[i]);
        mem_free(want);
        rig_free(&r);
    }
}

Test(model_pick, hidden_states_are_those_of_each_row)
{
    for (int deferred = 0; deferred < 2; deferred++) {
        struct rig r = rig_of(deferred);
        float *all = mem_array((size_t)N_ROWS * r.d_model, sizeof(float)), *one = mem_array(r.d_model, sizeof(float));
        float *before, *copy = mem_array(r.n_vocab, sizeof(float));
        forward(&r);
        cr_assert_eq(model_logits(r.model, 20, 1, &before), OK);
        memcpy(copy, before, r.n_vocab * sizeof(float));
        cr_assert_eq(model_hidden(r.model, 0, 32, all), OK);
        cr_assert_eq(model_hidden(r.model, 32, N_ROWS - 32, all + 32 * r.d_model), OK);
        for (uint32_t i = 0; i < N_ROWS; i++) {
            cr_assert_eq(model_hidden(r.model, i, 1, one), OK);
            cr_assert_eq(memcmp(one, all + i * r.d_model, r.d_model * sizeof(float)), 0, "row %u", i);
            cr_assert(i == 0 || memcmp(one, all, r.d_model * sizeof(float)) != 0);
        }
        cr_assert_eq(model_logits(r.model, 20, 1, &before), OK);
        cr_assert_eq(memcmp(copy, before, r.n_vocab * sizeof(float)), 0, "nothing is changed by looking");
        mem_free(all);
        mem_free(one);
        mem_free(copy);
        rig_free(&r);
    }
}
