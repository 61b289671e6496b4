/*
 * Handshakes in C against SYNs and ACKs of every kind: queues count what is on them, whoever is
 * accepted is as the SYN said, and every request and every control block comes back.
 */

#include <stdbool.h>
#include <string.h>

#include "tcp_bed.h"

#define BATCH 64
#define STEPS 150
#define PORTS 300

struct model {
	struct tcp_bed bed;
	struct us_tcp_sock *lsk;
	struct us_tcp_listen *listen;
	struct us_tcp_offer offer;
	us_dma_addr_t pages[BATCH];
	struct us_igb_rx_frame frames[BATCH];
};

/* Options as peers send them, or nonsense; return their length, a multiple of four. */
static uint32_t some_options(struct model *model, uint8_t *opt)
{
	static const uint8_t usual[] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 9, 0, 0, 0, 0, 1, 3, 3, 7};
	const uint32_t which = rng_below(model->bed.rng, 6);
	const uint32_t len = which < 3 ? sizeof(usual) : which == 3 ? 4 : 4 * rng_below(model->bed.rng, 11);

	for (uint32_t i = 0; i < len; i++)
		opt[i] = which <= 3 ? usual[i] : (uint8_t)rng_below(model->bed.rng, 12);
	return len;
}

/* A third ACK of one that is half-open, or nearly; without any it is nobody's. */
static uint32_t some_ack(struct model *model, uint8_t *th)
{
	struct us_request_sock *found[PORTS] = {0};
	const uint32_t count = us_reqsk_list(model->bed.fast, model->listen, found, PORTS);
	const struct us_request_sock *req = count ? found[rng_below(model->bed.rng, count)] : NULL;

	put16(th + 2, 80);
	if (!req)
		return 20;
	put16(th, req->rmt_port);
	put32(th + 4, req->rcv_nxt + (rng_below(model->bed.rng, 10) ? 0 : 1));
	put32(th + 8, req->snt_isn + (rng_below(model->bed.rng, 10) ? 1 : 2));
	if (!req->tstamp_ok)
		return 20;
	put32(th + 20, 0x0101080a);
	put32(th + 24, req->ts_recent + rng_below(model->bed.rng, 3) - !rng_below(model->bed.rng, 9));
	put32(th + 28, rng_below(model->bed.rng, 9) ? req->snt_tsval_last : rng_below(model->bed.rng, 99));
	return 32;
}

static uint32_t build(struct model *model, uint8_t *frame)
{
	const bool has_text = !rng_below(model->bed.rng, 20);
	uint8_t *th = frame + 34;
	uint32_t hlen = 20;

	memset(th, 0, 94);
	put16(th, 1024 + rng_below(model->bed.rng, PORTS));
	put16(th + 2, rng_below(model->bed.rng, 20) ? 80 : 81);
	put32(th + 4, (uint32_t)rng_next(model->bed.rng));
	th[13] = 0x02;
	if (rng_below(model->bed.rng, 2))
		hlen += some_options(model, th + 20);
	else
		th[13] = (uint8_t)((hlen = some_ack(model, th)) ? 0x10 : 0);
	th[12] = (uint8_t)(hlen << 2);
	put16(th + 14, rng_below(model->bed.rng, 9) ? 65535 : rng_below(model->bed.rng, 3));
	return tcp_bed_frame(frame, rng_below(model->bed.rng, 30) ? TCP_BED_THEIRS : TCP_BED_THEIRS + 5,
			     has_text ? 5 : 0, 0);
}

static void make_batch(struct model *model, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *frame = (uint8_t *)us_mem_base(model->bed.mem) + model->pages[i];

		memset(&model->frames[i], 0, sizeof(model->frames[i]));
		model->frames[i].addr = model->pages[i];
		model->frames[i].len = build(model, frame);
		model->frames[i].ip_summed = 1;
		if (!rng_below(model->bed.rng, 20))
			frame[rng_below(model->bed.rng, 74)] ^= (uint8_t)(1 + rng_below(model->bed.rng, 255));
		if (!rng_below(model->bed.rng, 30))
			model->frames[i].len = rng_below(model->bed.rng, model->frames[i].len + 1);
	}
}

static void free_child(struct model *model, struct us_tcp_sock *tp)
{
	us_bind_share_put(model->bed.fast, tp->bind_share);
	CHECK(tp->dst == &model->bed.dst && model->bed.dst.refs);
	model->bed.dst.refs--;
	tcp_bed_free_sock(&model->bed, tp);
}

static void accept_some(struct model *model, uint32_t most)
{
	while (most-- && model->listen->accept_len) {
		struct us_tcp_sock *tp = us_tcp_sock_at(model->bed.fast, us_acceptq_remove(model->listen));

		CHECK(tp && (tp->state == 1 || tp->done) && tp->sockopts == 1 && tp->sport == 80);
		CHECK(tp->mss_cache >= 48 - 12 && tp->mss_cache <= 1460 && tp->snd_wnd);
		CHECK(tp->rcv_nxt == tp->irs + 1 + tp->receive_queue.len + tp->done);
		CHECK(tp->snd_una == tp->iss + 1);
		CHECK(us_tcp_lookup(model->bed.fast, TCP_BED_OURS, 80, TCP_BED_THEIRS, tp->dport) == us_tcp_handle(tp));
		free_child(model, tp);
	}
}

static void expire(struct model *model, bool all)
{
	struct us_request_sock *req;

	if (all)
		model->bed.fast->now_us += 10000000;
	while ((req = us_reqsk_expired(model->bed.fast))) {
		CHECK(req->expires_us <= model->bed.fast->now_us && req->listen == model->listen);
		us_reqsk_queue_remove(model->bed.fast, req);
		CHECK(us_kmem_cache_free(model->bed.requests, req) == 0);
	}
}

static void step(struct model *model)
{
	const uint32_t count = 1 + rng_below(model->bed.rng, BATCH);
	struct us_slabinfo info;
	int left;

	make_batch(model, count);
	model->bed.fast->now_us += rng_below(model->bed.rng, 300000);
	model->bed.hh.usable = rng_below(model->bed.rng, 20) != 0;
	model->bed.dst.metrics = rng_below(model->bed.rng, 2) ? &model->bed.metrics : NULL;
	model->bed.metrics.rtt = rng_below(model->bed.rng, 1000000);
	left = us_tcp_fast_rx(model->bed.fast, tcp_bed_mac, model->frames, (int)count);
	CHECK(left >= 0 && left <= (int)count && model->bed.fast->nevents <= 1);
	CHECK(model->bed.hh.usable || left == (int)count);
	us_kmem_cache_info(model->bed.requests, &info);
	CHECK(info.active_objs == model->listen->qlen && model->listen->young == info.active_objs);
	CHECK(model->listen->qlen <= model->listen->max_ack_backlog + 1);
	CHECK(model->listen->accept_len <= model->listen->max_ack_backlog + 1);
	CHECK(us_tcp_hashed(model->bed.fast) == model->listen->accept_len);
	CHECK(model->bed.fast->shares[model->offer.child.bind_share].count == model->listen->accept_len);
	accept_some(model, rng_below(model->bed.rng, 30));
	expire(model, false);
	if (!rng_below(model->bed.rng, 3))
		tcp_bed_renew_ring(&model->bed);
}

static void configure(struct model *model)
{
	struct us_tcp_fast *fast = model->bed.fast;
	struct rng *rng = model->bed.rng;

	fast->timestamps = rng_below(rng, 3);
	fast->sack = rng_below(rng, 2);
	fast->window_scaling = rng_below(rng, 2);
	fast->syncookies = rng_below(rng, 2);
	fast->app_win = rng_below(rng, 32);
	model->bed.dst.mtu = 576 + rng_below(rng, 925);
	us_tcp_dst_link(fast, &model->bed.dst);
}

static void listen_on(struct model *model)
{
	struct us_tcp_sock *lsk = model->lsk = us_kmem_cache_zalloc(model->bed.tcp);
	struct us_tcp_sock *child = &model->offer.child;

	lsk->state = 10;
	lsk->place = us_tcp_place(model->bed.fast, lsk);
	lsk->generation = ++model->bed.fast->generation;
	lsk->sk_rcvbuf = 131072;
	lsk->sk_sndbuf = 16384;
	lsk->rcvbuf_locked = (uint8_t)rng_below(model->bed.rng, 2);
	lsk->user_mss = rng_below(model->bed.rng, 2) ? 0 : 500;
	model->listen = us_tcp_listen_create(lsk);
	model->listen->max_ack_backlog = 1 + rng_below(model->bed.rng, 100);
	child->saddr = TCP_BED_OURS;
	child->sport = 80;
	child->sockopts = 1;
	child->ca_kind = 1;
	child->scaling_ratio = 128;
	child->icsk_rto_min_us = 200000;
	child->icsk_rto_max_us = 120000000;
	child->bind_share = us_bind_share_alloc(model->bed.fast, 80);
	model->offer.listen = model->listen;
	us_tcp_offer_add(model->bed.fast, &model->offer);
}

HARNESS_TEST(tcp_handshakes)
{
	struct model *model = calloc(1, sizeof(*model));
	struct us_tcp_fast *fast;

	tcp_bed_open(&model->bed, rng, 32 << 20);
	fast = model->bed.fast;
	configure(model);
	listen_on(model);
	for (uint32_t i = 0; i < BATCH; i++)
		model->pages[i] = us_alloc_pages(model->bed.mem, 0);
	for (uint32_t i = 0; i < STEPS; i++)
		step(model);
	CHECK(fast->mib.fast_rx && fast->mib.PassiveOpens && fast->mib.punted);
	accept_some(model, UINT32_MAX);
	expire(model, true);
	CHECK(!model->listen->qlen && !model->listen->young && !model->bed.dst.refs);
	us_tcp_offer_remove(fast, &model->offer);
	us_tcp_dst_unlink(fast, &model->bed.dst);
	us_tcp_listen_destroy(model->listen);
	CHECK(us_kmem_cache_free(model->bed.tcp, model->lsk) == 0);
	for (uint32_t i = 0; i < BATCH; i++)
		CHECK(us_put_page(model->bed.mem, model->pages[i]) == 0);
	tcp_bed_close(&model->bed);
	free(model);
}
