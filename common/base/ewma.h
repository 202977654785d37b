/* ewma.h - a moving average that forgets: each sample is a fifth of it, what was before fades. */
#ifndef BASE_EWMA_H
#define BASE_EWMA_H

#define EWMA_WEIGHT 0.2

/* `mean` with one more sample; 0 stands for "nothing measured yet", then the sample is the mean. */
static inline double ewma(double mean, double sample)
{
    return mean == 0.0 ? sample : mean + EWMA_WEIGHT * (sample - mean);
}
#endif
