/* route: the CUDA backend chooses the experts that the CPU's reference chooses, with the bits of its weights, and adds
 * biases and outputs of slots as it does. */
#include "helpers/cuda_check.h"

#include <math.h>

#define MAX_EXPERTS 512u
#define MAX_USED    10u
#define ROWS        7u
#define LD          (MAX_EXPERTS + 5)

static const struct backend_limits LIMITS = {
    .max_rows = 16, .max_context = 64, .max_cols = 64, .max_experts = MAX_EXPERTS, .max_experts_used = MAX_USED
};

/* One route of both backends over the same logits. */
static void check_route(const struct both *b, const float *logits, const float *bias, uint32_t k,
                        const struct route_facts *facts, const char *what)
{
    const size_t slots = (size_t)ROWS * k, bytes = slots * 4, x_bytes = (size_t)ROWS * LD * sizeof(float);
    struct route_facts f = *facts;
    struct route cpu = { check_device(b->cpu, NULL, bytes), check_device(b->cpu, NULL, bytes), ROWS, k };
    struct route gpu = { check_device(b->gpu, NULL, bytes), check_device(b->gpu, NULL, bytes), ROWS, k };
    float *x = check_device(b->gpu, logits, x_bytes);
    float *d_bias = check_device(b->gpu, bias, MAX_EXPERTS * sizeof(float));
    f.bias = facts->bias ? bias : NULL;
    cr_assert_eq(b->cpu->ops->route(b->cpu, NULL, &cpu, logits, LD, &f), OK);
    f.bias = facts->bias ? d_bias : NULL;
    cr_assert_eq(b->gpu->ops->route(b->gpu, NULL, &gpu, x, LD, &f), OK);
    uint32_t *expert = check_host(b->gpu, gpu.expert, bytes);
    float *weight = check_host(b->gpu, gpu.weight, bytes);
    for (size_t i = 0; i < slots; i++)
        cr_assert_eq(expert[i], cpu.expert[i], "%s, gate %d of %u: slot %zu has expert %u, not %u", what, f.gate,
                     f.n_experts, i, expert[i], cpu.expert[i]);
    check_same_floats(cpu.weight, weight, slots, what);
    mem_free(expert);
    mem_free(weight);
    check_release(b->gpu, x, x_bytes);
    check_release(b->gpu, d_bias, MAX_EXPERTS * sizeof(float));
    check_release(b->cpu, cpu.expert, bytes);
    check_release(b->cpu, cpu.weight, bytes);
    check_release(b->gpu, gpu.expert, bytes);
    check_release(b->gpu, gpu.weight, bytes);
}

Test(cuda_route, experts_and_weights_are_the_cpus)
{
    static const uint32_t counts[] = { 1, 4, 6, 16, 60, 128, 256, 512 };
    static float x[ROWS * LD], bias[MAX_EXPERTS];
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 1 };
    check_fill(&rng, FILL_NORMAL, bias, MAX_EXPERTS);
    for (uint32_t i = 0; i < MAX_EXPERTS; i++) bias[i] *= 0.05f;
    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++)
        for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++)
            for (int variant = 0; variant < 8; variant++) {
                const uint32_t n = counts[c], most = n < MAX_USED ? n : MAX_USED;
                struct route_facts f = { (enum route_gate)gate, n, .norm = variant & 1, .scale = 1 };
                if (variant & 2) f.bias = bias;
                if (variant & 4) f.scale = 2.5f;
                if (variant & 4 && n % 4 == 0 && n > 16) f.n_groups = n % 8 ? 4 : 8, f.n_groups_used = 3;
                check_fill(&rng, variant == 7 ? FILL_MIXED : FILL_NORMAL, x, ROWS * LD);
                check_route(&b, x, bias, variant & 1 ? most : 1 + (most - 1) / 2, &f, "normal logits");
            }
    close_both(&b);
}

Test(cuda_route, of_equals_the_first_is_chosen_and_groups_may_have_one_expert)
{
    static float x[ROWS * LD], bias[MAX_EXPERTS];
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 2 };
    for (uint32_t i = 0; i < ROWS * LD; i++) x[i] = (float)check_below(&rng, 3) - (i < LD ? 40.0f : 1.0f);
    for (uint32_t i = 0; i < LD; i += 3) x[2 * LD + i] = -0.0f, x[2 * LD + i + 1] = 0.0f;
    for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++)
        for (uint32_t groups = 0; groups <= 64; groups += 32) {
            const struct route_facts f = { (enum route_gate)gate, 64,           .n_groups = groups,
                                           .n_groups_used = 9,    .norm = true, .scale = 1 };
            check_route(&b, x, bias, 8, &f, "equal logits");
        }
    close_both(&b);
}

/* Whatever the logits are, a row gets the experts that the CPU gives it. */
Test(cuda_route, rows_of_no_numbers_get_experts_too)
{
    static float x[ROWS * LD], bias[MAX_EXPERTS];
    struct both b = open_both(LIMITS);
    for (uint32_t i = 0; i < LD; i++) {
        x[i] = NAN;
        x[LD + i] = i % 3 ? NAN : (float)i;
        x[2 * LD + i] = i % 2 ? INFINITY : -INFINITY;
        x[3 * LD + i] = i % 7 ? (float)(i % 5) : INFINITY;
        x[4 * LD + i] = i == 17 ? NAN : (float)(i % 11);
        x[5 * LD + i] = -INFINITY;
        x[6 * LD + i] = i < 8 ? -INFINITY : i < 16 ? INFINITY : (float)i;
    }
    bias[3] = INFINITY;
    bias[21] = NAN;
    for (int gate = ROUTE_SOFTMAX; gate <= ROUTE_SQRT_SOFTPLUS; gate++)
        for (int variant = 0; variant < 4; variant++) {
            struct route_facts f = { (enum route_gate)gate, 40, .norm = true, .scale = 1 };
            if (variant & 1) f.n_groups = 5, f.n_groups_used = 2;
            if (variant & 2) f.bias = bias;
            check_route(&b, x, bias, 9, &f, "no numbers");
        }
    close_both(&b);
}

Test(cuda_route, biases_and_sums_of_slots_are_the_cpus)
{
    enum { N = 5, K = 3, D = 272, Y_LD = D + 3, EXPERTS = 9 };
    static const uint32_t experts[N * K] = { 0, 3, 8, 1, 2, 4, 5, 6, 7, 0, 4, 8, 2, 5, 8 };
    static float y[N * K * Y_LD], bias[EXPERTS * D], weight[N * K], x[N * Y_LD], slots[N * K * D];
    struct both b = open_both(LIMITS);
    struct check_rng rng = { 3 };
    for (enum check_fill fill = 0; fill < FILL_COUNT; fill++) {
        check_fill(&rng, fill, y, N * K * Y_LD);
        check_fill(&rng, fill, slots, N * K * D);
        check_fill(&rng, FILL_NORMAL, bias, EXPERTS * D);
        check_fill(&rng, FILL_NORMAL, weight, N * K);
        check_fill(&rng, FILL_NORMAL, x, N * Y_LD);
        uint32_t *d_expert = check_device(b.gpu, experts, sizeof(experts));
        float *d_y = check_device(b.gpu, y, sizeof(y)), *d_bias = check_device(b.gpu, bias, sizeof(bias));
        float *d_weight = check_device(b.gpu, weight, sizeof(weight)), *d_x = check_device(b.gpu, x, sizeof(x));
        float *d_slots = check_device(b.gpu, slots, sizeof(slots));
        const struct route cpu = { (uint32_t *)(uintptr_t)experts, weight, N, K }, gpu = { d_expert, d_weight, N, K };
        cr_assert_eq(b.cpu->ops->expert_bias(b.cpu, NULL, y, Y_LD, bias, D - 1, &cpu), OK);
        cr_assert_eq(b.gpu->ops->expert_bias(b.gpu, NULL, d_y, Y_LD, d_bias, D - 1, &gpu), OK);
        cr_assert_eq(b.cpu->ops->expert_sum(b.cpu, NULL, x, Y_LD, slots, &cpu, D), OK);
        cr_assert_eq(b.gpu->ops->expert_sum(b.gpu, NULL, d_x, Y_LD, d_slots, &gpu, D), OK);
        float *got_y = check_host(b.gpu, d_y, sizeof(y)), *got_x = check_host(b.gpu, d_x, sizeof(x));
        check_same_floats(y, got_y, N * K * Y_LD, "expert_bias");
        check_same_floats(x, got_x, N * Y_LD, "expert_sum");
        mem_free(got_y);
        mem_free(got_x);
        check_release(b.gpu, d_expert, sizeof(experts));
        check_release(b.gpu, d_y, sizeof(y));
        check_release(b.gpu, d_bias, sizeof(bias));
        check_release(b.gpu, d_weight, sizeof(weight));
        check_release(b.gpu, d_x, sizeof(x));
        check_release(b.gpu, d_slots, sizeof(slots));
    }
    close_both(&b);
}
