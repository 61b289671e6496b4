/*
 * Handshakes in C against SYNs and ACKs of every kind: queues count what is on them, whoever is
 * accepted is as the SYN said, and every request and every control block comes back.
 */

#include <stdbool.h>
#include <string.h>

#include "checksum.h"
#include "harness.h"
#include "tcp_fast.h"

#define BATCH 64
#define STEPS 150
#define PORTS 300
#define HEADERS 34
#define OURS 0x0a000002
#define THEIRS 0x0a000001

static const uint8_t MAC[6] = {2, 0, 0, 0, 0, 2};

struct model {
	struct rng *rng;
	struct us_mem *mem;
	struct us_kmem_cache *tcp, *requests, *tw;
	struct us_tcp_fast *fast;
	struct us_tcp_sock *lsk;
	struct us_tcp_listen *listen;
	struct us_tcp_offer offer;
	struct us_tcp_metrics metrics;
	struct us_igb_tx_ring *ring;
	struct us_xmit_queue queue;
	struct us_hh hh;
	struct us_tcp_dst dst;
	us_dma_addr_t pages[BATCH];
	struct us_igb_rx_frame frames[BATCH];
};

static void put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, v >> 16);
	put16(p + 2, v);
}

/* Options as peers send them, or nonsense; return their length, a multiple of four. */
static uint32_t some_options(struct model *model, uint8_t *opt)
{
	static const uint8_t usual[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7};
	const uint32_t which = rng_below(model->rng, 6);
	const uint32_t len = which < 3 ? sizeof(usual) : which == 3 ? 4 : 4 * rng_below(model->rng, 11);

	for (uint32_t i = 0; i < len; i++)
		opt[i] = which <= 3 ? usual[i] : (uint8_t)rng_below(model->rng, 12);
	return len;
}

/* A third ACK of one that is half-open, or nearly; without any it is nobody's. */
static uint32_t some_ack(struct model *model, uint8_t *th)
{
	struct us_request_sock *found[PORTS] = {0};
	const uint32_t count = us_reqsk_list(model->fast, model->listen, found, PORTS);
	const struct us_request_sock *req = count ? found[rng_below(model->rng, count)] : NULL;

	put16(th + 2, 80);
	if (!req)
		return 20;
	put16(th, req->rmt_port);
	put32(th + 4, req->rcv_nxt + (rng_below(model->rng, 10) ? 0 : 1));
	put32(th + 8, req->snt_isn + (rng_below(model->rng, 10) ? 1 : 2));
	if (!req->tstamp_ok)
		return 20;
	put32(th + 20, 0x0101080a);
	put32(th + 24, req->ts_recent + rng_below(model->rng, 3) - !rng_below(model->rng, 9));
	put32(th + 28, rng_below(model->rng, 9) ? req->snt_tsval_last : rng_below(model->rng, 99));
	return 32;
}

static uint32_t build(struct model *model, uint8_t *frame)
{
	uint8_t *iph = frame + 14, *th = frame + HEADERS;
	uint32_t hlen = 20, tot_len;

	memset(frame, 0, 128);
	memcpy(frame, MAC, 6);
	put16(frame + 12, 0x0800);
	put16(th, 1024 + rng_below(model->rng, PORTS));
	put16(th + 2, rng_below(model->rng, 20) ? 80 : 81);
	put32(th + 4, (uint32_t)rng_next(model->rng));
	th[13] = 0x02;
	if (rng_below(model->rng, 2))
		hlen += some_options(model, th + 20);
	else
		th[13] = (uint8_t)((hlen = some_ack(model, th)) ? 0x10 : 0);
	th[12] = (uint8_t)(hlen << 2);
	put16(th + 14, rng_below(model->rng, 9) ? 65535 : rng_below(model->rng, 3));
	tot_len = 20 + hlen + (rng_below(model->rng, 20) ? 0 : 5);
	iph[0] = 0x45;
	put16(iph + 2, tot_len);
	iph[8] = 64;
	iph[9] = 6;
	put32(iph + 12, rng_below(model->rng, 30) ? THEIRS : THEIRS + 5);
	put32(iph + 16, OURS);
	put16(iph + 10, us_ip_fast_csum(iph, 20));
	return 14 + tot_len;
}

static void make_batch(struct model *model, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *frame = (uint8_t *)us_mem_base(model->mem) + model->pages[i];

		memset(&model->frames[i], 0, sizeof(model->frames[i]));
		model->frames[i].addr = model->pages[i];
		model->frames[i].len = build(model, frame);
		model->frames[i].ip_summed = 1;
		if (!rng_below(model->rng, 20))
			frame[rng_below(model->rng, 74)] ^= (uint8_t)(1 + rng_below(model->rng, 255));
		if (!rng_below(model->rng, 30))
			model->frames[i].len = rng_below(model->rng, model->frames[i].len + 1);
	}
}

static void free_child(struct model *model, struct us_tcp_sock *tp)
{
	us_tcp_unhash(model->fast, tp);
	us_tcp_forget_timers(model->fast, tp);
	us_bind_share_put(model->fast, tp->bind_share);
	CHECK(tp->dst == &model->dst && model->dst.refs);
	model->dst.refs--;
	us_bq_purge(model->mem, &tp->receive_queue);
	CHECK(us_kmem_cache_free(model->tcp, tp) == 0);
}

static void accept_some(struct model *model, uint32_t most)
{
	while (most-- && model->listen->accept_len) {
		struct us_tcp_sock *tp = us_tcp_sock_at(model->fast, us_acceptq_remove(model->listen));

		CHECK(tp && (tp->state == 1 || tp->done) && tp->sockopts == 1 && tp->sport == 80);
		CHECK(tp->mss_cache >= 48 - 12 && tp->mss_cache <= 1460 && tp->snd_wnd);
		CHECK(tp->rcv_nxt == tp->irs + 1 + tp->receive_queue.len + tp->done);
		CHECK(tp->snd_una == tp->iss + 1);
		CHECK(us_tcp_lookup(model->fast, OURS, 80, THEIRS, tp->dport) == us_tcp_handle(tp));
		free_child(model, tp);
	}
}

static void expire(struct model *model, bool all)
{
	struct us_request_sock *req;

	if (all)
		model->fast->now_us += 10000000;
	while ((req = us_reqsk_expired(model->fast))) {
		CHECK(req->expires_us <= model->fast->now_us && req->listen == model->listen);
		us_reqsk_queue_remove(model->fast, req);
		CHECK(us_kmem_cache_free(model->requests, req) == 0);
	}
}

static void renew_ring(struct model *model)
{
	us_igb_free_tx_resources(model->ring);
	model->ring = us_igb_setup_tx_resources(model->mem, 64);
	model->queue.ring = model->ring;
}

static void step(struct model *model)
{
	const uint32_t count = 1 + rng_below(model->rng, BATCH);
	struct us_slabinfo info;
	int left;

	make_batch(model, count);
	model->fast->now_us += rng_below(model->rng, 300000);
	model->hh.usable = rng_below(model->rng, 20) != 0;
	model->dst.metrics = rng_below(model->rng, 2) ? &model->metrics : NULL;
	model->metrics.rtt = rng_below(model->rng, 1000000);
	left = us_tcp_fast_rx(model->fast, MAC, model->frames, (int)count);
	CHECK(left >= 0 && left <= (int)count && model->fast->nevents <= 1);
	CHECK(model->hh.usable || left == (int)count);
	us_kmem_cache_info(model->requests, &info);
	CHECK(info.active_objs == model->listen->qlen && model->listen->young == info.active_objs);
	CHECK(model->listen->qlen <= model->listen->max_ack_backlog + 1);
	CHECK(model->listen->accept_len <= model->listen->max_ack_backlog + 1);
	CHECK(us_tcp_hashed(model->fast) == model->listen->accept_len);
	CHECK(model->fast->shares[model->offer.child.bind_share].count == model->listen->accept_len);
	accept_some(model, rng_below(model->rng, 30));
	expire(model, false);
	if (!rng_below(model->rng, 3))
		renew_ring(model);
}

static void configure(struct model *model)
{
	struct us_tcp_fast *fast = model->fast;

	fast->tcp_cache = model->tcp;
	fast->request_cache = model->requests;
	fast->tw_cache = model->tw;
	fast->on = fast->may_xmit = 1;
	fast->now_us = 1000000;
	fast->rmem_max = fast->wmem_max = 6 << 20;
	fast->timestamps = rng_below(model->rng, 3);
	fast->sack = rng_below(model->rng, 2);
	fast->window_scaling = rng_below(model->rng, 2);
	fast->syncookies = rng_below(model->rng, 2);
	fast->max_syn_backlog = 128;
	fast->min_snd_mss = 48;
	fast->app_win = rng_below(model->rng, 32);
	fast->reordering = 3;
	fast->init_cwnd = 10;
	fast->pacing_ss_ratio = fast->pacing_ca_ratio = 200;
	model->queue.can_sum = rng_below(model->rng, 2);
	model->dst.queue = &model->queue;
	model->dst.hh = &model->hh;
	model->dst.mtu = 576 + rng_below(model->rng, 925);
	model->dst.gso_max_size = 65536;
	model->dst.saddr = OURS;
	model->dst.daddr = THEIRS;
	us_tcp_dst_link(fast, &model->dst);
}

static void listen_on(struct model *model)
{
	struct us_tcp_sock *lsk = model->lsk = us_kmem_cache_zalloc(model->tcp);
	struct us_tcp_sock *child = &model->offer.child;

	lsk->state = 10;
	lsk->place = us_tcp_place(model->fast, lsk);
	lsk->generation = ++model->fast->generation;
	lsk->sk_rcvbuf = 131072;
	lsk->sk_sndbuf = 16384;
	lsk->rcvbuf_locked = (uint8_t)rng_below(model->rng, 2);
	lsk->user_mss = rng_below(model->rng, 2) ? 0 : 500;
	model->listen = us_tcp_listen_create(lsk);
	model->listen->max_ack_backlog = 1 + rng_below(model->rng, 100);
	child->saddr = OURS;
	child->sport = 80;
	child->sockopts = 1;
	child->ca_kind = 1;
	child->scaling_ratio = 128;
	child->icsk_rto_min_us = 200000;
	child->icsk_rto_max_us = 120000000;
	child->bind_share = us_bind_share_alloc(model->fast, 80);
	model->offer.listen = model->listen;
	us_tcp_offer_add(model->fast, &model->offer);
}

HARNESS_TEST(tcp_handshakes)
{
	struct model *model = calloc(1, sizeof(*model));
	const uint8_t key[16] = {1, 2, 3};
	uint32_t first[11], last[11];

	model->rng = rng;
	model->mem = us_mem_create(32 << 20);
	us_mem_buddyinfo(model->mem, first);
	model->tcp = us_kmem_cache_create(model->mem, "TCP", sizeof(struct us_tcp_sock));
	model->requests = us_kmem_cache_create(model->mem, "req", sizeof(struct us_request_sock));
	model->tw = us_kmem_cache_create(model->mem, "tw", sizeof(struct us_timewait_sock));
	model->fast = us_tcp_fast_create(model->mem, key);
	configure(model);
	listen_on(model);
	renew_ring(model);
	for (uint32_t i = 0; i < BATCH; i++)
		model->pages[i] = us_alloc_pages(model->mem, 0);
	for (uint32_t i = 0; i < STEPS; i++)
		step(model);
	CHECK(model->fast->mib.fast_rx && model->fast->mib.PassiveOpens && model->fast->mib.punted);
	accept_some(model, UINT32_MAX);
	expire(model, true);
	CHECK(!model->listen->qlen && !model->listen->young && !model->dst.refs);
	us_tcp_offer_remove(model->fast, &model->offer);
	us_tcp_dst_unlink(model->fast, &model->dst);
	us_tcp_listen_destroy(model->listen);
	CHECK(us_kmem_cache_free(model->tcp, model->lsk) == 0);
	for (uint32_t i = 0; i < BATCH; i++)
		CHECK(us_put_page(model->mem, model->pages[i]) == 0);
	us_igb_free_tx_resources(model->ring);
	us_tcp_fast_destroy(model->fast);
	CHECK(us_kmem_cache_destroy(model->tcp) == 0);
	CHECK(us_kmem_cache_destroy(model->requests) == 0);
	CHECK(us_kmem_cache_destroy(model->tw) == 0);
	us_mem_buddyinfo(model->mem, last);
	CHECK(memcmp(first, last, sizeof(first)) == 0);
	us_mem_destroy(model->mem);
	free(model);
}
