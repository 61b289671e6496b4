#ifndef USTACK_ABI_WAIT_H
#define USTACK_ABI_WAIT_H

#include "types.h"

#define US_WAIT_FD 1
#define US_WAIT_WAKEFD 2

/* The edge's only blocking call; see src/wait.c. */
int us_wait(int fd, int wakefd, uint32_t spin, int64_t timeout_us);
uint64_t us_monotonic_us(void);

#endif
