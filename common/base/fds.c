/* fds.c - how many descriptors this process may have. */
#include "base/fds.h"

#include <sys/resource.h>

uint64_t fds_raise(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    rlim_t soft = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max;
    if (soft < limit.rlim_max && setrlimit(RLIMIT_NOFILE, &limit) != 0) return soft;
    return limit.rlim_cur;
}
