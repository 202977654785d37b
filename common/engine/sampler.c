/* sampler.c - turns a row of logits into a token, as a pure function of what its header names. */
#include "engine/sampler.h"

#include "base/mem.h"
#include "base/token_id.h"
#include "engine/select.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LOGPROB_FLOOR (-9999.0f) /* of a masked token: finite, so that it can be written as JSON */
#define NEGLIGIBLE    (-40.0f)   /* exp() of it is 4e-18: no vocabulary sums such weights to a draw's step */

struct sampler {
    uint32_t n_vocab;
    int32_t *end_ids;
    uint32_t n_end_ids;
    struct candidate *cand; /* [n_vocab] */
    uint32_t *counts;       /* [n_vocab], all zero between calls */
};

struct sampler *sampler_create(uint32_t n_vocab, const int32_t *end_ids, uint32_t n_end_ids)
{
    struct sampler *s = mem_zalloc(sizeof(*s));
    s->n_vocab = n_vocab;
    s->n_end_ids = n_end_ids;
    s->end_ids = mem_array(n_end_ids, sizeof(*s->end_ids));
    if (n_end_ids > 0) memcpy(s->end_ids, end_ids, n_end_ids * sizeof(*end_ids));
    s->cand = mem_array(n_vocab, sizeof(*s->cand));
    s->counts = mem_array(n_vocab, sizeof(*s->counts));
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s) return;
    mem_free(s->counts);
    mem_free(s->cand);
    mem_free(s->end_ids);
    mem_free(s);
}

bool sampler_is_end(const struct sampler *s, int32_t id)
{
    for (uint32_t i = 0; i < s->n_end_ids; i++)
        if (s->end_ids[i] == id) return true;
    return false;
}

/* One round of the splitmix64 finalizer: every input bit reaches every output bit. */
static uint64_t mix(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

double sampler_uniform(uint64_t seed, uint32_t choice, uint32_t output_idx)
{
    uint64_t counter = (uint64_t)choice << 32 | output_idx;
    uint64_t bits = mix(mix(seed) ^ mix(~counter));
    return (double)(bits >> 11) * 0x1p-53;
}

static bool in_vocab(const struct sampler *s, int32_t id)
{
    return token_id_ok(id, s->n_vocab);
}

static void apply_bias(const struct sampler *s, float *logits, const struct sampling_params *p)
{
    for (uint32_t i = 0; i < p->n_bias; i++)
        if (in_vocab(s, p->bias_ids[i])) logits[p->bias_ids[i]] += p->bias[i];
}

static float repeated(float logit, float penalty)
{
    return logit > 0.0f ? logit / penalty : logit * penalty;
}

/* Repetition counts a token once, wherever it stands; the other two count the output alone. */
static void apply_penalties(struct sampler *s, float *logits, const struct sampling_params *p, const int32_t *history,
                            uint32_t n_prompt, uint32_t n_output)
{
    uint32_t n = n_prompt + n_output;
    if (p->repetition_penalty != 1.0f) {
        for (uint32_t i = 0; i < n; i++)
            if (in_vocab(s, history[i]) && s->counts[history[i]]++ == 0)
                logits[history[i]] = repeated(logits[history[i]], p->repetition_penalty);
        for (uint32_t i = 0; i < n; i++)
            if (in_vocab(s, history[i])) s->counts[history[i]] = 0;
    }
    if (p->frequency_penalty == 0.0f && p->presence_penalty == 0.0f) return;
    for (uint32_t i = n_prompt; i < n; i++)
        if (in_vocab(s, history[i])) s->counts[history[i]]++;
    for (uint32_t i = n_prompt; i < n; i++) {
        if (!in_vocab(s, history[i]) || s->counts[history[i]] == 0) continue;
        logits[history[i]] -= p->frequency_penalty * (float)s->counts[history[i]];
        logits[history[i]] -= p->presence_penalty;
        s->counts[history[i]] = 0;
    }
}

static void mask_ends(const struct sampler *s, float *logits)
{
    for (uint32_t i = 0; i < s->n_end_ids; i++)
        if (in_vocab(s, s->end_ids[i])) logits[s->end_ids[i]] = -INFINITY;
}

/* Whether any of 16 has an exponent of ones; a loop of this form is vectorized. */
static uint32_t any_not_finite(const float *v)
{
    const uint32_t exponent = 0x7f800000u;
    uint32_t bits[16], any = 0;
    memcpy(bits, v, sizeof(bits));
    for (int i = 0; i < 16; i++) any |= (bits[i] & exponent) == exponent ? 1u : 0u;
    return any;
}

bool sampler_can_draw(const struct sampler *s, const float *logits)
{
    float rest[16] = { 0 };
    uint32_t i = 0, bad = 0;
    for (; i + 16 <= s->n_vocab; i += 16) bad |= any_not_finite(logits + i);
    memcpy(rest, logits + i, (s->n_vocab - i) * sizeof(*rest));
    return !(bad | any_not_finite(rest));
}

/* The lowest id of the largest logit; NaN is never larger. */
static int32_t arg_max(const float *logits, uint32_t n)
{
    int32_t best = 0;
    float top = -INFINITY;
    for (uint32_t i = 0; i < n; i++)
        if (logits[i] > top) {
            top = logits[i];
            best = (int32_t)i;
        }
    return best;
}

/* Weights exp((logit - max) / temperature) of those that can be drawn at all; returns how many. */
static uint32_t weigh(struct sampler *s, const float *logits, float temperature)
{
    float top = logits[arg_max(logits, s->n_vocab)];
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        float x = (logits[i] - top) / temperature;
        if (!(x > NEGLIGIBLE)) continue; /* NaN and masked ones as well */
        s->cand[n++] = (struct candidate){ expf(x), (int32_t)i };
    }
    return n;
}

static double sum_of(const struct candidate *c, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)c[i].weight;
    return sum;
}

/* The heaviest weight is 1, so min_p is a bound on the weight itself. */
static uint32_t keep_min_p(struct candidate *c, uint32_t n, float min_p)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (c[i].weight >= min_p) c[kept++] = c[i];
    return kept;
}

static int32_t draw(struct sampler *s, const float *logits, const struct sampling_params *p, uint32_t output_idx)
{
    struct candidate *c = s->cand;
    uint32_t n = weigh(s, logits, p->temperature);
    if (n == 0) return arg_max(logits, s->n_vocab);
    if (p->top_k > 0) n = select_top(c, n, p->top_k);
    if (p->top_p < 1.0f) n = select_mass(c, n, (double)p->top_p * sum_of(c, n));
    if (p->min_p > 0.0f) n = keep_min_p(c, n, p->min_p);
    double left = sampler_uniform(p->seed, p->choice, output_idx) * sum_of(c, n);
    for (uint32_t i = 0; i + 1 < n; i++) {
        left -= (double)c[i].weight;
        if (left < 0.0) return c[i].id;
    }
    return c[n - 1].id;
}

static float clamp_logprob(double lp)
{
    return lp > (double)LOGPROB_FLOOR ? (float)lp : LOGPROB_FLOOR; /* NaN becomes the floor */
}

void sampler_logprobs(struct sampler *s, const float *logits, int32_t token, uint32_t n_top, struct token_logprobs *lp)
{
    struct candidate *c = s->cand;
    float top = logits[arg_max(logits, s->n_vocab)];
    double sum = 0.0;
    uint32_t n = 0;
    assert(n_top <= SAMPLING_MAX_LOGPROBS);
    for (uint32_t i = 0; i < s->n_vocab; i++) {
        float x = logits[i] - top;
        if (x > NEGLIGIBLE) sum += (double)expf(x);
    }
    double log_sum = (double)top + log(sum);
    lp->logprob = in_vocab(s, token) ? clamp_logprob((double)logits[token] - log_sum) : LOGPROB_FLOOR;
    lp->n_top = 0;
    if (n_top == 0) return;
    for (uint32_t i = 0; i < s->n_vocab; i++)
        if (logits[i] > -INFINITY) s->cand[n++] = (struct candidate){ logits[i], (int32_t)i };
    n = select_top(c, n, n_top);
    select_sort(c, n);
    for (uint32_t i = 0; i < n; i++) {
        lp->top_ids[i] = c[i].id;
        lp->top[i] = clamp_logprob((double)c[i].weight - log_sum);
    }
    lp->n_top = n;
}

int32_t sampler_draw(struct sampler *s, float *logits, const struct sampling_params *p, const int32_t *history,
                     uint32_t n_prompt, uint32_t n_output, struct token_logprobs *lp)
{
    apply_bias(s, logits, p);
    apply_penalties(s, logits, p, history, n_prompt, n_output);
    if (n_output < p->min_tokens) mask_ends(s, logits);
    int32_t token = p->temperature > 0.0f ? draw(s, logits, p, n_output) : arg_max(logits, s->n_vocab);
    if (lp) sampler_logprobs(s, logits, token, (uint32_t)(p->n_logprobs > 0 ? p->n_logprobs : 0), lp);
    return token;
}
