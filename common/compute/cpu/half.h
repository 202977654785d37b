/* half.h - fp16 and bf16 to fp32 and back in plain C, as the conversion instructions do it. */
#ifndef COMPUTE_CPU_HALF_H
#define COMPUTE_CPU_HALF_H
#include <stdint.h>
#include <string.h>

static inline float half_from_bits(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof(f));
    return f;
}

static inline uint32_t half_bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof(bits));
    return bits;
}

static inline float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exp = (h >> 10) & 0x1fu, man = h & 0x3ffu;
    if (exp == 0x1f) /* infinity, or a NaN made quiet */
        return half_from_bits(sign | 0x7f800000u | (man ? 0x400000u | man << 13 : 0));
    if (exp) return half_from_bits(sign | (exp + 112) << 23 | man << 13);
    float tiny = (float)man * 0x1p-24f;
    return sign ? -tiny : tiny;
}

/* Round to nearest even; too large becomes infinity. */
static inline uint16_t half_from_float(float f)
{
    uint32_t bits = half_bits_of(f), sign = (bits >> 16) & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
    if (bits >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u);
    if (bits < 0x38800000u) /* subnormal: adding 0.5 leaves round(f * 2^24) in the low bits */
        return (uint16_t)(sign | (half_bits_of(half_from_bits(bits) + 0.5f) - 0x3f000000u));
    return (uint16_t)(sign | ((bits - 0x38000000u + 0xfffu + ((bits >> 13) & 1)) >> 13));
}

static inline float bf16_to_float(uint16_t h)
{
    return half_from_bits((uint32_t)h << 16);
}

/* Only for values that bf16 has. */
static inline uint16_t bf16_from_float(float f)
{
    return (uint16_t)(half_bits_of(f) >> 16);
}

/* Round to nearest even; too large becomes infinity, a NaN stays one. */
static inline uint16_t bf16_round(float f)
{
    uint32_t bits = half_bits_of(f);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

static inline uint16_t half_load(const void *p)
{
    uint16_t h;
    memcpy(&h, p, sizeof(h));
    return h;
}
#endif
