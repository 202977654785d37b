/* step_tmpl.h - the step of every quantizer: from a largest magnitude to a scale.
 *
 * Included by vec_tmpl.h. */
#ifndef COMPUTE_CPU_STEP_TMPL_H
#define COMPUTE_CPU_STEP_TMPL_H

struct v_step {
    float scale, inv;
    bool finite;
};

/* Values up to `amax` (as bits) in steps up to `top`: nothing to keep is scale 1, not a number stays one. */
static inline struct v_step v_step_of(uint32_t amax, float top)
{
    if (amax >= 0x7f800000u) return (struct v_step){ NAN, 0, false };
    float scale = half_from_bits(amax) / top;
    if (scale < FLT_MIN) return (struct v_step){ 1.0f, 0, true };
    return (struct v_step){ scale, 1.0f / scale, true };
}
#endif
