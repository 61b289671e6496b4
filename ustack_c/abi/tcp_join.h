#ifndef USTACK_ABI_TCP_JOIN_H
#define USTACK_ABI_TCP_JOIN_H

#include "tcp_fast.h"

#define US_JOINS_AT_ONCE 64	/* descriptors that one call looks at */

/* What is left of us_tcp_joins_poll's result above the number of descriptors that were ready. */
#define US_JOINS_LEFT_SHIFT 8	/* how many of them are left to Python */
#define US_JOINS_SENT 0x10000	/* something was sent */
#define US_JOINS_MORE 0x20000	/* events to look at, or a doorbell to ring */

/* One of our ends of the clients' pairs. */
struct us_tcp_join {
	uint64_t handle;	/* of the connection that C moves its bytes to and from, 0: none */
	uint8_t is_full;	/* it takes no more: text stays in its queue until Python says so */
	uint8_t is_offered;	/* perhaps no client has accepted it */
	uint8_t is_ended;	/* the client has been told that nothing more comes */
};

/* A descriptor that is left to Python. */
struct us_join_event {
	int32_t fd;
	uint32_t events;	/* EPOLL* */
	uint32_t is_closed;	/* both: the client's socket and the connection */
	int32_t error;		/* what reading it has said, and will not say again, or 0 */
	uint32_t start;		/* bytes [start, end) of the scratch space were read, but are not */
	uint32_t end;		/* queued, for lack of memory */
};

/* All connections that are joined to descriptors: their text is moved without Python. */
struct us_tcp_joins {
	struct us_tcp_fast *fast;
	int epoll;			/* watches the descriptors */
	uint32_t njoins;
	struct us_tcp_join *joins;	/* by descriptor */
	int32_t *fds;			/* by a control block's place */
	uint8_t *scratch;
	uint32_t scratch_size;
	uint64_t copied;		/* bytes queued since Python last looked */
	struct us_join_event left[US_JOINS_AT_ONCE];
};

struct us_tcp_joins *us_tcp_joins_create(struct us_tcp_fast *fast, int epoll, uint32_t scratch_size);
void us_tcp_joins_destroy(struct us_tcp_joins *joins);
int us_tcp_join(struct us_tcp_joins *joins, uint64_t handle, int fd, int is_offered);
int us_tcp_unjoin(struct us_tcp_joins *joins, int fd);
void us_tcp_join_set_full(struct us_tcp_joins *joins, int fd, int is_full);
uint32_t us_tcp_joins_poll(struct us_tcp_joins *joins, uint64_t now_us, uint32_t genid);

#endif
