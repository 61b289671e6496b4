#ifndef USTACK_ABI_PAIR_H
#define USTACK_ABI_PAIR_H

#include "types.h"

/* A socket of a daemon's client: both ends of a socketpair; see src/pair.c. */
struct us_pair {
	uint64_t inode;		/* the kernel's number of @end */
	int32_t fd;		/* the daemon's end, which has a name and does not block */
	int32_t end;		/* the client's */
};

int us_pair_open(struct us_pair *pair, int type, uint64_t number, int epoll, uint32_t events);
int us_pair_hand_over(int listener, int end, const void *message, uint32_t size);
int us_pair_is_taken(int fd);
int us_pair_end_stream(int fd);

#endif
