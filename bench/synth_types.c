/* synth_types.c - random blocks of every type of weights: random bits, with scales that make them sane. */
#include "base/strbuf.h"
#include "bench/synth.h"
#include "compute/cpu/half.h"
#include "compute/dtype.h"

#include <math.h>
#include <string.h>

enum scale_form { SCALE_F16, SCALE_SPREAD, SCALE_E8M0, PLAIN_F32, PLAIN_F16, PLAIN_BF16 };

struct synth_type {
    const char *name;
    enum scale_form form;
    uint8_t d_at;    /* byte of the scale in a block */
    uint8_t min_at;  /* byte of the f16 minimum, where min_per_d is not 0 */
    float min_per_d; /* the minimum over the scale that takes the mean to 0 */
    float rms;       /* of random bits where the scale is 1 */
};

/* rms: measured on random blocks with the `gguf` package's dequantize. */
static const struct synth_type TYPES[] = {
    { "F32", PLAIN_F32 },
    { "F16", PLAIN_F16 },
    { "BF16", PLAIN_BF16 },
    { "Q4_0", SCALE_F16, 0, 0, 0.0f, 4.64f },
    { "Q4_1", SCALE_F16, 0, 2, -7.5f, 4.62f },
    { "Q5_0", SCALE_F16, 0, 0, 0.0f, 9.25f },
    { "Q5_1", SCALE_F16, 0, 2, -15.5f, 9.22f },
    { "Q8_0", SCALE_F16, 0, 0, 0.0f, 73.9f },
    { "Q2_K", SCALE_F16, 80, 82, 1.5f, 13.8f },
    { "Q3_K", SCALE_F16, 108, 0, 0.0f, 43.4f },
    { "Q4_K", SCALE_F16, 0, 2, 7.5f, 258.0f },
    { "Q5_K", SCALE_F16, 0, 2, 15.5f, 529.0f },
    { "Q6_K", SCALE_F16, 208, 0, 0.0f, 1366.0f },
    { "IQ1_S", SCALE_F16, 0, 0, 0.0f, 7.19f },
    { "IQ1_M", SCALE_SPREAD, 48, 0, 0.0f, 7.18f },
    { "IQ2_XXS", SCALE_F16, 0, 0, 0.0f, 53.4f },
    { "IQ2_XS", SCALE_F16, 0, 0, 0.0f, 55.7f },
    { "IQ2_S", SCALE_F16, 0, 0, 0.0f, 56.4f },
    { "IQ3_XXS", SCALE_F16, 0, 0, 0.0f, 142.0f },
    { "IQ3_S", SCALE_F16, 0, 0, 0.0f, 140.0f },
    { "IQ4_NL", SCALE_F16, 0, 0, 0.0f, 67.7f },
    { "IQ4_XS", SCALE_F16, 0, 0, 0.0f, 1246.0f },
    { "TQ1_0", SCALE_F16, 52, 0, 0.0f, 0.817f },
    { "TQ2_0", SCALE_F16, 64, 0, 0.0f, 1.22f },
    { "MXFP4", SCALE_E8M0, 0, 0, 0.0f, 2.92f },
};
#define N_TYPES (sizeof(TYPES) / sizeof(TYPES[0]))

const struct synth_type *synth_type_find(const char *name)
{
    for (size_t i = 0; i < N_TYPES; i++)
        if (strcmp(TYPES[i].name, name) == 0) return &TYPES[i];
    return NULL;
}

void synth_type_names(struct strbuf *out)
{
    for (size_t i = 0; i < N_TYPES; i++) strbuf_addf(out, "%s%s", i ? " " : "", TYPES[i].name);
}

uint32_t synth_type_number(const struct synth_type *t)
{
    uint32_t type = 0;
    while (strcmp(dtype_info(type)->name, t->name) != 0) type++;
    return type;
}

/* splitmix64 */
static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static void fill_random(uint64_t *seed, uint8_t *out, size_t bytes)
{
    uint64_t v;
    for (size_t at = 0; at < bytes; at += 8) {
        v = next_random(seed);
        memcpy(out + at, &v, bytes - at < 8 ? bytes - at : 8);
    }
}

/* Uniform, of that standard deviation. */
static float random_float(uint64_t *seed, float std)
{
    return ((float)(next_random(seed) >> 40) * 0x1p-23f - 1.0f) * 1.7320508f * std;
}

void synth_floats_fill(uint64_t *seed, float low, float high, float *out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = low == high ? low : low + (high - low) * ((float)(next_random(seed) >> 40) * 0x1p-24f);
}

static void fill_floats(const struct synth_type *t, uint64_t *seed, float std, uint8_t *out, size_t bytes)
{
    if (t->form == PLAIN_F32) {
        for (size_t at = 0; at < bytes; at += 4) {
            float v = random_float(seed, std);
            memcpy(out + at, &v, 4);
        }
        return;
    }
    for (size_t at = 0; at < bytes; at += 2) {
        float v = random_float(seed, std);
        uint16_t h = t->form == PLAIN_F16 ? half_from_float(v) : (uint16_t)(half_bits_of(v) >> 16);
        memcpy(out + at, &h, 2);
    }
}

/* IQ1_M keeps its f16 scale in the upper nibbles of four 16-bit words. */
static void spread_scale(uint8_t *words, uint16_t d)
{
    for (int i = 0; i < 4; i++) words[2 * i + 1] = (uint8_t)((words[2 * i + 1] & 15) | (d >> 4 * i & 15) << 4);
}

static void set_scale(const struct synth_type *t, uint8_t *block, float d)
{
    uint16_t h = half_from_float(d);
    switch (t->form) {
    case SCALE_F16: memcpy(block + t->d_at, &h, 2); break;
    case SCALE_SPREAD: spread_scale(block + t->d_at, h); break;
    case SCALE_E8M0: block[t->d_at] = (uint8_t)lrintf(127.0f + log2f(fabsf(d))); break;
    default: break;
    }
    if (t->min_per_d == 0.0f) return;
    h = half_from_float(d * t->min_per_d);
    memcpy(block + t->min_at, &h, 2);
}

void synth_type_fill(const struct synth_type *t, uint64_t *seed, float std, uint8_t *out, size_t bytes)
{
    if (t->form >= PLAIN_F32) {
        fill_floats(t, seed, std, out, bytes);
        return;
    }
    size_t block_bytes = dtype_info(synth_type_number(t))->block_bytes;
    fill_random(seed, out, bytes);
    /* Codes are not symmetric around 0: a random sign of each scale takes the mean away. */
    for (size_t at = 0; at < bytes; at += block_bytes)
        set_scale(t, out + at, next_random(seed) >> 63 ? -std / t->rms : std / t->rms);
}
