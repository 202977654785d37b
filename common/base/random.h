/* random.h - names that nobody else draws: of processes, sessions, reservations. */
#ifndef BASE_RANDOM_H
#define BASE_RANDOM_H
#include <stdint.h>

/* 64 random bits of the kernel's, never 0, which means "none" wherever such a name stands. */
uint64_t random_id(void);
#endif
