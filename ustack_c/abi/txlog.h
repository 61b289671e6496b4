#ifndef USTACK_ABI_TXLOG_H
#define USTACK_ABI_TXLOG_H

#include "types.h"

#define US_TX_PSH 0x8000

/* One transmission: what went out in one go, maybe as a super-frame. */
struct us_tx_rec {
	uint32_t end_seq;		/* it starts where the one before it ends */
	uint16_t pcount;		/* segments, and US_TX_PSH if the last of them has it */
	uint16_t mss;			/* payload of a full one, bytes */
	uint64_t sent_us;		/* 0: sent more than once, no RTT sample (Karn) */
};

/*
 * When what is in flight was sent: a FIFO of transmissions, oldest first, between SND.UNA
 * and SND.NXT. The oldest stands in here, the others in a ring that exists only while
 * there are any; all zero is a valid empty log.
 */
struct us_txlog {
	us_dma_addr_t ring;
	uint32_t head;
	uint32_t room;			/* places of the ring, a power of two */
	uint32_t len;			/* transmissions, the oldest among them */
	uint32_t first_end;
	uint64_t first_us;
	uint16_t first_pcount;
	uint16_t first_mss;
	uint32_t last_end;
};

/* What an ACK took off the log. */
struct us_tx_acked {
	uint64_t first_us;		/* when the oldest of it was sent */
	uint64_t last_us;		/* when the newest was */
	uint32_t pkts;			/* segments */
	uint32_t end_seq;		/* end of the newest transmission touched */
	uint32_t ambiguous;		/* something of it was sent more than once */
	uint32_t whole;			/* the last transmission went entirely */
};

#endif
