/* sampler.c - what is picked from a row for a token, and the token drawn from that; pure, as its header says. */
#include "engine/sampler.h"

#include "base/mem.h"
#include "base/select.h"
#include "base/token_id.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define LOGPROB_FLOOR (-9999.0f) /* of a masked token: finite, so that it can be written as JSON */

struct sampler {
    uint32_t n_vocab;
    int32_t *end_ids;
    uint32_t n_end_ids;
    int32_t *bannable; /* end_ids that are in the vocabulary */
    uint32_t n_bannable;
    struct candidate *beyond; /* [n_vocab] */
    uint32_t *counts;         /* [n_vocab], all zero between calls */
    struct pick_seen *seen;   /* [n_vocab], of the rows asked for since sampler_begin() */
    uint32_t n_seen;
    float *row; /* [n_vocab] */
};

struct sampler *sampler_create(uint32_t n_vocab, const int32_t *end_ids, uint32_t n_end_ids)
{
    struct sampler *s = mem_zalloc(sizeof(*s));
    s->n_vocab = n_vocab;
    s->n_end_ids = n_end_ids;
    s->end_ids = mem_array(n_end_ids, sizeof(*s->end_ids));
    s->bannable = mem_array(n_end_ids, sizeof(*s->bannable));
    for (uint32_t i = 0; i < n_end_ids; i++) {
        s->end_ids[i] = end_ids[i];
        if (token_id_ok(end_ids[i], n_vocab)) s->bannable[s->n_bannable++] = end_ids[i];
    }
    s->beyond = mem_array(n_vocab, sizeof(*s->beyond));
    s->counts = mem_array(n_vocab, sizeof(*s->counts));
    s->seen = mem_array(n_vocab, sizeof(*s->seen));
    s->row = mem_array(n_vocab, sizeof(*s->row));
    return s;
}

void sampler_destroy(struct sampler *s)
{
    if (!s) return;
    mem_free(s->row);
    mem_free(s->seen);
    mem_free(s->counts);
    mem_free(s->beyond);
    mem_free(s->bannable);
    mem_free(s->end_ids);
    mem_free(s);
}

bool sampler_is_end(const struct sampler *s, int32_t id)
{
    for (uint32_t i = 0; i < s->n_end_ids; i++)
        if (s->end_ids[i] == id) return true;
    return false;
}

float *sampler_row(struct sampler *s)
{
    return s->row;
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

/* --- what is to be picked --- */
void sampler_begin(struct sampler *s)
{
    s->n_seen = 0;
}

/* The tokens of history[from, n), each once; the output begins at n_prompt. */
static bool list_seen(struct sampler *s, struct pick_row *out, const int32_t *history, uint32_t from, uint32_t n,
                      uint32_t n_prompt)
{
    const uint32_t first = s->n_seen;
    bool fits = true;
    for (uint32_t i = from; i < n && fits; i++) {
        if (!token_id_ok(history[i], s->n_vocab)) continue;
        uint32_t *at = &s->counts[history[i]]; /* its place in the list, from 1 on */
        fits = *at > 0 || s->n_seen < s->n_vocab;
        if (!fits) break;
        if (*at == 0) {
            s->seen[s->n_seen] = (struct pick_seen){ history[i], 0 };
            *at = ++s->n_seen;
        }
        s->seen[*at - 1].n_output += i >= n_prompt;
    }
    for (uint32_t i = first; i < s->n_seen; i++) s->counts[s->seen[i].id] = 0;
    out->seen = s->seen + first;
    out->n_seen = s->n_seen - first;
    if (!fits) s->n_seen = first;
    return fits;
}

/* Whether filters or draws look at all tokens, and not just at the first top_k. */
static bool looks_at_all(const struct sampling_params *p)
{
    return p->top_k == 0 || p->top_k > PICK_MAX;
}

static uint32_t candidates_for(const struct sampling_params *p)
{
    const uint32_t shown = p->n_logprobs > 0 ? (uint32_t)p->n_logprobs : 1;
    if (!(p->temperature > 0.0f)) return shown;
    if (looks_at_all(p)) return PICK_MAX;
    return p->top_k > shown ? p->top_k : shown;
}

bool sampler_ask(struct sampler *s, struct pick_row *out, const struct sampling_params *p, const int32_t *history,
                 uint32_t n_prompt, uint32_t n_output, const uint32_t *mask)
{
    const bool repeats = p->repetition_penalty != 1.0f;
    const bool counts = p->frequency_penalty != 0.0f || p->presence_penalty != 0.0f;
    *out = (struct pick_row){ .bias_ids = p->bias_ids,
                              .bias = p->bias,
                              .n_bias = p->n_bias,
                              .repetition = p->repetition_penalty,
                              .frequency = p->frequency_penalty,
                              .presence = p->presence_penalty,
                              .banned = s->bannable,
                              .n_banned = n_output < p->min_tokens ? s->n_bannable : 0,
                              .mask = mask,
                              .want = candidates_for(p),
                              .temperature = p->temperature,
                              .wants_mass = p->temperature > 0.0f && looks_at_all(p),
                              .wants_sum = p->n_logprobs >= 0,
                              .ask = -1 };
    if (!repeats && !counts) return true;
    return list_seen(s, out, history, repeats ? 0 : n_prompt, n_prompt + n_output, n_prompt);
}

/* --- the draw --- */
struct kept { /* the candidates that the filters leave: the first n */
    uint32_t n;
    double mass;   /* what a draw is a part of */
    bool is_all;   /* no token beyond the candidates is left */
    bool is_known; /* otherwise the filters end beyond the candidates */
};

static bool has_top_k(const struct sampler *s, const struct sampling_params *p)
{
    return p->top_k > 0 && p->top_k < s->n_vocab;
}

static double mass_of(const float *weights, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)weights[i];
    return sum;
}

/* The fewest that have the goal together, or n. */
static uint32_t count_to(const float *weights, uint32_t n, double goal, bool *reached)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) {
        sum += (double)weights[i];
        if (sum >= goal) {
            *reached = true;
            return i + 1;
        }
    }
    return n;
}

/* Filters one after the other; `of_top_k` is the mass of what top_k leaves, negative if it is not known yet.  The
 * heaviest weight is 1, so min_p is a bound on weights themselves. */
static struct kept keep(const struct sampler *s, const struct picked *from, const struct sampling_params *p,
                        double of_top_k)
{
    const bool by_k = has_top_k(s, p), cuts = by_k || p->top_p < 1.0f || p->min_p > 0.0f;
    struct kept k = { .n = from->n, .is_all = from->n == s->n_vocab, .is_known = true };
    if (by_k && p->top_k <= k.n) {
        k.n = p->top_k;
        k.is_all = true;
        of_top_k = mass_of(from->weight, k.n);
    }
    if (p->top_p < 1.0f) {
        const double whole = by_k ? of_top_k : from->mass;
        if (whole < 0.0) return (struct kept){ .is_known = false };
        k.n = count_to(from->weight, k.n, (double)p->top_p * whole, &k.is_all);
    }
    uint32_t n = 0;
    while (n < k.n && from->weight[n] > 0.0f && from->weight[n] >= p->min_p) n++;
    k.is_all = k.is_all || n < k.n;
    k.n = n;
    k.is_known = k.is_all || !cuts;
    k.mass = cuts ? mass_of(from->weight, n) : from->mass;
    return k;
}

/* Goes through weights until `left` is used up; returns how many it has passed. */
static uint32_t walk(const float *weights, uint32_t n, double *left)
{
    for (uint32_t i = 0; i < n; i++) {
        *left -= (double)weights[i];
        if (*left < 0.0) return i;
    }
    return n;
}

static struct drawn drawn_from(const struct picked *from, uint32_t i)
{
    return (struct drawn){ from->best[i].id, from->best[i].value };
}

static bool draw_kept(const struct picked *from, const struct kept *k, double uniform, struct drawn *out)
{
    double left = uniform * k->mass;
    uint32_t at = walk(from->weight, k->n, &left);
    if (at == k->n && !k->is_all) return false;
    *out = drawn_from(from, at < k->n ? at : k->n - 1); /* rounding may leave a bit */
    return true;
}

static double uniform_of(const struct sampling_params *p, uint32_t n_output)
{
    return sampler_uniform(p->seed, p->choice, n_output);
}

bool sampler_draw(const struct sampler *s, struct drawn *out, const struct picked *from,
                  const struct sampling_params *p, uint32_t n_output)
{
    *out = drawn_from(from, 0);
    if (!(p->temperature > 0.0f) || !isfinite(from->best[0].value)) return true;
    const struct kept k = keep(s, from, p, -1.0);
    return k.is_known && draw_kept(from, &k, uniform_of(p, n_output), out);
}

/* --- beyond the candidates --- */
/* The first n of `beyond`, by rising id. */
static void order_by_id(struct sampler *s, const float *weights, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) s->counts[s->beyond[i].id] = 1;
    n = 0;
    for (uint32_t id = 0; id < s->n_vocab; id++) {
        if (s->counts[id] == 0) continue;
        s->counts[id] = 0;
        s->beyond[n++] = (struct candidate){ weights[id], (int32_t)id };
    }
}

/* Tokens that have a weight and are no candidates, by rising id. */
static uint32_t list_beyond(struct sampler *s, const struct picked *from, const float *weights)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < from->n; i++) s->counts[from->best[i].id] = 1;
    for (uint32_t id = 0; id < s->n_vocab; id++)
        if (s->counts[id] == 0 && weights[id] > 0.0f) s->beyond[n++] = (struct candidate){ weights[id], (int32_t)id };
    for (uint32_t i = 0; i < from->n; i++) s->counts[from->best[i].id] = 0;
    return n;
}

static double mass_beyond(const struct sampler *s, uint32_t n)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < n; i++) sum += (double)s->beyond[i].value;
    return sum;
}

static uint32_t keep_min_p(struct sampler *s, uint32_t n, float min_p)
{
    uint32_t kept = 0;
    for (uint32_t i = 0; i < n; i++)
        if (s->beyond[i].value >= min_p) s->beyond[kept++] = s->beyond[i];
    return kept;
}

/* The first n of `beyond`, past all candidates. */
static struct drawn draw_on(const struct sampler *s, const struct picked *from, const float *logits, uint32_t n,
                            double left)
{
    for (uint32_t i = 0; i < n; i++) {
        left -= (double)s->beyond[i].value;
        if (left < 0.0 || i + 1 == n) return (struct drawn){ s->beyond[i].id, logits[s->beyond[i].id] };
    }
    return drawn_from(from, from->n - 1);
}

struct drawn sampler_draw_beyond(struct sampler *s, const struct picked *from, const float *logits,
                                 const float *weights, const struct sampling_params *p, uint32_t n_output)
{
    const double near = mass_of(from->weight, from->n), uniform = uniform_of(p, n_output);
    const bool by_k = has_top_k(s, p);
    uint32_t n = list_beyond(s, from, weights);
    double whole = from->mass;
    struct drawn out;
    if (by_k) {
        n = select_top(s->beyond, n, p->top_k - from->n);
        order_by_id(s, weights, n);
        whole = near + mass_beyond(s, n);
    }
    struct kept k = keep(s, from, p, whole); /* now that it is known what top_k leaves */
    if (k.is_all) {
        const bool is_drawn = draw_kept(from, &k, uniform, &out);
        assert(is_drawn);
        return out;
    }
    if (p->top_p < 1.0f) {
        n = select_mass(s->beyond, n, (double)p->top_p * whole - near);
        order_by_id(s, weights, n);
    }
    n = keep_min_p(s, n, p->min_p);
    k.mass = by_k || p->top_p < 1.0f || p->min_p > 0.0f ? near + mass_beyond(s, n) : from->mass;
    double left = uniform * k.mass;
    const uint32_t at = walk(from->weight, from->n, &left);
    return at < from->n ? drawn_from(from, at) : draw_on(s, from, logits, n, left);
}

/* --- logprobs --- */
static float clamp_logprob(double lp)
{
    return lp > (double)LOGPROB_FLOOR ? (float)lp : LOGPROB_FLOOR; /* NaN becomes the floor */
}

void sampler_logprobs(const struct picked *from, const struct drawn *token, uint32_t n_top, struct token_logprobs *lp)
{
    const double log_sum = (double)from->best[0].value + log(from->sum);
    assert(n_top <= SAMPLING_MAX_LOGPROBS);
    lp->logprob = clamp_logprob((double)token->logit - log_sum);
    lp->n_top = 0;
    for (uint32_t i = 0; i < n_top && i < from->n && from->best[i].value > -INFINITY; i++, lp->n_top++) {
        lp->top_ids[i] = from->best[i].id;
        lp->top[i] = clamp_logprob((double)from->best[i].value - log_sum);
    }
}
