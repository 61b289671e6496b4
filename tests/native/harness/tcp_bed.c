/* See tcp_bed.h. */

#include <string.h>

#include "checksum.h"
#include "tcp_bed.h"

const uint8_t tcp_bed_mac[6] = {2, 0, 0, 0, 0, 2};

void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

static void configure(struct tcp_bed *bed)
{
	struct us_tcp_fast *fast = bed->fast;

	fast->tcp_cache = bed->tcp;
	fast->bictcp_cache = bed->bictcp;
	fast->request_cache = bed->requests;
	fast->tw_cache = bed->tw;
	fast->on = fast->may_xmit = 1;
	fast->now_us = 1000000;
	fast->rmem_max = fast->wmem_max = 6 << 20;
	fast->limit_output_bytes = 4 << 20;
	fast->mem_limits[0] = fast->mem_limits[1] = fast->mem_limits[2] = UINT32_MAX;
	fast->notsent_lowat = UINT32_MAX;
	fast->moderate_rcvbuf = 1;
	fast->pingpong_thresh = 1;
	fast->min_snd_mss = 48;
	fast->reordering = 3;
	fast->init_cwnd = 10;
	fast->pacing_ss_ratio = 200;
	fast->pacing_ca_ratio = 120;
	fast->tso_rtt_log = 9;
	fast->min_tso_segs = 2;
	fast->max_syn_backlog = 128;
}

static void set_up_route(struct tcp_bed *bed)
{
	bed->queue.can_sum = rng_below(bed->rng, 2);
	bed->queue.txq = &bed->txq;
	bed->hh.usable = 1;
	bed->metrics.saddr = bed->dst.saddr = TCP_BED_OURS;
	bed->metrics.daddr = bed->dst.daddr = TCP_BED_THEIRS;
	bed->dst.queue = &bed->queue;
	bed->dst.hh = &bed->hh;
	bed->dst.mtu = 1500;
	bed->dst.gso_max_size = 65536;
}

void tcp_bed_open(struct tcp_bed *bed, struct rng *rng, uint64_t arena_bytes)
{
	const uint8_t key[16] = {1, 2, 3};

	memset(bed, 0, sizeof(*bed));
	bed->rng = rng;
	bed->mem = us_mem_create(arena_bytes);
	us_mem_buddyinfo(bed->mem, bed->free_blocks);
	bed->tcp = us_kmem_cache_create(bed->mem, "TCP", sizeof(struct us_tcp_sock));
	bed->bictcp = us_kmem_cache_create(bed->mem, "tcp_bictcp", sizeof(struct us_bictcp));
	bed->requests = us_kmem_cache_create(bed->mem, "req", sizeof(struct us_request_sock));
	bed->tw = us_kmem_cache_create(bed->mem, "tw", sizeof(struct us_timewait_sock));
	bed->fast = us_tcp_fast_create(bed->mem, key);
	configure(bed);
	set_up_route(bed);
	tcp_bed_renew_ring(bed);
}

void tcp_bed_renew_ring(struct tcp_bed *bed)
{
	us_igb_free_tx_resources(bed->ring);
	bed->ring = us_igb_setup_tx_resources(bed->mem, 64);
	bed->queue.ring = bed->ring;
}

void tcp_bed_close(struct tcp_bed *bed)
{
	uint32_t free_blocks[11];

	us_igb_free_tx_resources(bed->ring);
	us_tcp_fast_destroy(bed->fast);
	CHECK(us_kmem_cache_destroy(bed->tcp) == 0);
	CHECK(us_kmem_cache_destroy(bed->bictcp) == 0);
	CHECK(us_kmem_cache_destroy(bed->requests) == 0);
	CHECK(us_kmem_cache_destroy(bed->tw) == 0);
	us_mem_buddyinfo(bed->mem, free_blocks);
	CHECK(memcmp(free_blocks, bed->free_blocks, sizeof(free_blocks)) == 0);
	us_mem_destroy(bed->mem);
}

void tcp_bed_free_sock(struct tcp_bed *bed, struct us_tcp_sock *tp)
{
	us_tcp_unhash(bed->fast, tp);
	us_tcp_forget_timers(bed->fast, tp);
	us_bq_purge(bed->mem, &tp->receive_queue);
	us_bq_purge(bed->mem, &tp->write_queue);
	us_tcp_tx_purge(bed->mem, tp);
	CHECK(!tp->bictcp || us_kmem_cache_free(bed->bictcp, tp->bictcp) == 0);
	CHECK(us_kmem_cache_free(bed->tcp, tp) == 0);
}

uint32_t tcp_bed_frame(uint8_t *frame, uint32_t saddr, uint32_t len, uint32_t ident)
{
	uint8_t *iph = frame + 14, *th = frame + 34;
	const uint32_t tcp_len = (uint32_t)(th[12] >> 4) * 4 + len;

	memset(frame, 0, 34);
	memcpy(frame, tcp_bed_mac, 6);
	put16(frame + 12, 0x0800);
	iph[0] = 0x45;
	put16(iph + 2, 20 + tcp_len);
	put16(iph + 4, ident);
	put16(iph + 6, 0x4000);
	iph[8] = 64;
	iph[9] = 6;
	put32(iph + 12, saddr);
	put32(iph + 16, TCP_BED_OURS);
	put16(iph + 10, us_ip_fast_csum(iph, 20));
	put16(th + 16, 0);
	put16(th + 16, us_csum_tcpudp_magic(saddr, TCP_BED_OURS, tcp_len, 6,
					    us_csum_partial(th, tcp_len, 0)));
	return 34 + tcp_len;
}
