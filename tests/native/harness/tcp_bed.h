#ifndef USTACK_HARNESS_TCP_BED_H
#define USTACK_HARNESS_TCP_BED_H

/* What the tests of TCP in C have in common: an arena, its caches, a device, one route. */

#include "harness.h"
#include "tcp_fast.h"

#define TCP_BED_OURS 0x0a000002
#define TCP_BED_THEIRS 0x0a000001
#define TCP_BED_HEADERS 54	/* without options */

struct tcp_bed {
	struct rng *rng;
	struct us_mem *mem;
	struct us_kmem_cache *tcp, *bictcp, *requests, *tw;
	struct us_tcp_fast *fast;
	struct us_igb_tx_ring *ring;
	struct us_igb_txq_regs txq;
	struct us_xmit_queue queue;
	struct us_hh hh;
	struct us_tcp_metrics metrics;
	struct us_tcp_dst dst;
	uint32_t free_blocks[11];
};

extern const uint8_t tcp_bed_mac[6];

/* A fast path that is on, the sysctls at Linux's values, what the device can at random. */
void tcp_bed_open(struct tcp_bed *bed, struct rng *rng, uint64_t arena_bytes);

/* A ring with nothing in it: the device has sent all. */
void tcp_bed_renew_ring(struct tcp_bed *bed);

/* Free all that tcp_bed_open has made; every object and every page has come back. */
void tcp_bed_close(struct tcp_bed *bed);

/* Forget a connection and what it holds, as Python does (tcp_destroy). */
void tcp_bed_free_sock(struct tcp_bed *bed, struct us_tcp_sock *tp);

void put16(uint8_t *p, uint32_t v);
void put32(uint8_t *p, uint32_t v);

/*
 * Finish a frame to us whose TCP header and payload of @len bytes are in place from byte 34 on:
 * Ethernet and IP headers, both checksums. Return its length.
 */
uint32_t tcp_bed_frame(uint8_t *frame, uint32_t saddr, uint32_t len, uint32_t ident);

#endif
