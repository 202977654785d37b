/* fds.h - how many descriptors this process may have. */
#ifndef BASE_FDS_H
#define BASE_FDS_H
#include <stdint.h>

/* Raises the soft limit to the hard one and returns what it is then. */
uint64_t fds_raise(void);
#endif
