#ifndef USTACK_ABI_IGB_POLL_H
#define USTACK_ABI_IGB_POLL_H

#include "nic.h"
#include "tcp_fast.h"

/* Frames that one DMA step of a turn takes at most. */
#define US_IGB_POLL_DMA 256

/* A reader's own turns in one call, and about how many bytes each takes: these are to be in the
 * cache still when they are copied. */
#define US_IGB_RECV_TURNS 8
#define US_IGB_RECV_BYTES 262144

/* us_igb_wait looks at the other descriptor once in so many times. */
#define US_IGB_WAKE_LOOKS 8

/* What us_igb_poll has left. */
#define US_IGB_POLL_LEFT 1	/* frames, their buffers not posted again; the poll goes on */
#define US_IGB_POLL_AGAIN 2	/* the poll goes on */
#define US_IGB_POLL_EVENTS 4	/* something to do for connections */
#define US_IGB_POLL_HELD 8	/* an interrupt that is due at ITRDUE */
#define US_IGB_POLL_GONE 16	/* the wire is gone */
#define US_IGB_POLL_NOT_NOW 32	/* nothing was done: descriptors to send are short */
#define US_IGB_POLL_MORE 64	/* frames on the wire, perhaps: as many as one step takes have come */
#define US_IGB_POLL_TIMERS 128	/* timers of connections that are due (us_tcp_timers_due) */
/* Above that: interrupts delivered, and frames that TCP's fast path took. */
#define US_IGB_POLL_IRQS_SHIFT 16
#define US_IGB_POLL_CONSUMED_SHIFT 32

/* A device with one queue, for us_igb_poll. */
struct us_igb_poll {
	struct us_nic *nic;
	struct us_igb_rx_ring *rx;
	struct us_igb_tx_ring *tx;
	struct us_igb_rxq_regs *rxq;
	struct us_igb_itr *itr;
	struct us_tcp_fast *fast;
	uint8_t mac[6];
	uint8_t is_adaptive;	/* interrupt moderation follows the load */
	uint8_t gro;		/* software GRO is on */
	int32_t left;		/* frames for Python: the first of rx->frames */
	uint64_t now_us;	/* us_igb_wait: the present at its end */
	uint64_t done;		/* us_igb_recv_wait: what its turn has done */
	uint32_t flags;		/* us_igb_recvmsg: what the last of its turns has left */
	uint32_t consumed;	/* ... frames that TCP's fast path took */
};

uint64_t us_igb_poll(struct us_igb_poll *poll, uint64_t now_us, uint32_t genid);
uint64_t us_igb_wait(struct us_igb_poll *poll, uint32_t looks, int wakefd, uint32_t genid);
uint32_t us_igb_recv_wait(struct us_igb_poll *poll, struct us_tcp_sock *tp, void *buffer,
			  uint32_t len, uint32_t looks, int wakefd, uint32_t genid);
int64_t us_igb_recvmsg(struct us_igb_poll *poll, struct us_tcp_sock *tp, void *buffer,
		       uint32_t len, uint64_t now_us, uint32_t genid);

#endif
