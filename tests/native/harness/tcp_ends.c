/*
 * The end of connections in C against segments of every kind: orphans and mini-sockets are counted
 * as what there is, each has the port's share and the route that it should, and nothing is left
 * when the last one's time is over.
 */

#include <stdbool.h>
#include <string.h>

#include "tcp_bed.h"

#define SOCKS 40
#define BATCH 64
#define STEPS 120
#define FIRST_PORT 40000
#define ACK 0x10
#define FIN 0x01

struct model {
	struct tcp_bed bed;
	uint32_t share;
	uint64_t closed[SOCKS];		/* handles of orphans that may be there yet, or 0 */
	struct us_tcp_sock *open[SOCKS];	/* or NULL */
	us_dma_addr_t pages[BATCH];
	struct us_igb_rx_frame frames[BATCH];
};

/* Connection @i, its peer's FIN come or not. */
static void open_sock(struct model *model, uint32_t i)
{
	struct rng *rng = model->bed.rng;
	struct us_tcp_sock *tp = us_kmem_cache_zalloc(model->bed.tcp);

	tp->saddr = TCP_BED_OURS;
	tp->daddr = TCP_BED_THEIRS;
	tp->sport = 80;
	tp->dport = (uint16_t)(FIRST_PORT + i);
	tp->done = !rng_below(rng, 3);
	tp->state = tp->done ? 8 : 1;
	tp->tstamp_ok = (uint8_t)rng_below(rng, 2);
	tp->rcv_nxt = tp->rcv_wup = tp->copied_seq = (uint32_t)rng_next(rng);
	tp->last_ack_sent = tp->rcv_nxt;
	tp->rcv_wnd = tp->rcv_ssthresh = tp->window_clamp = 65536;
	tp->rcv_wscale = (uint8_t)rng_below(rng, 8);
	tp->sk_rcvbuf = 131072;
	tp->sk_sndbuf = 16384;
	tp->snd_una = tp->snd_nxt = tp->write_seq = (uint32_t)rng_next(rng);
	tp->snd_wnd = tp->max_window = rng_below(rng, 9) ? 1 << 16 : 0;
	tp->bytes_acked = 1;
	tp->scaling_ratio = 128;
	tp->advmss = tp->ack_rcv_mss = tp->mss_cache = 1448;
	tp->pmtu_mss = 1460;
	tp->rto_us = 200000 << rng_below(rng, 10);
	tp->icsk_rto_min_us = 200000;
	tp->icsk_rto_max_us = 120000000;
	tp->srtt_us = rng_below(rng, 800000);
	tp->snd_cwnd = 10;
	tp->snd_ssthresh = rng_below(rng, 2) ? 0x7fffffff : 1 + rng_below(rng, 100);
	tp->ca_kind = (uint8_t)(1 + rng_below(rng, 2));
	tp->bictcp = rng_below(rng, 2) ? us_kmem_cache_zalloc(model->bed.bictcp) : NULL;
	tp->dst = &model->bed.dst;
	tp->bind_share = model->share;
	us_bind_share_get(model->bed.fast, model->share);
	tp->place = us_tcp_place(model->bed.fast, tp);
	tp->generation = ++model->bed.fast->generation;
	us_tcp_hash(model->bed.fast, tp);
	model->open[i] = tp;
}

/* Its application or Python is done with it. */
static void free_sock(struct model *model, struct us_tcp_sock *tp)
{
	if (tp->dead) {
		tp->dst->refs--;
		model->bed.fast->orphans--;
	}
	us_bind_share_put(model->bed.fast, tp->bind_share);
	tcp_bed_free_sock(&model->bed, tp);
}

/* Write a little, perhaps, and close; what C does not close Python does. */
static void close_sock(struct model *model, uint32_t i)
{
	static const uint8_t text[3000];
	struct us_tcp_fast *fast = model->bed.fast;
	struct us_tcp_sock *tp = model->open[i];
	const uint64_t handle = us_tcp_handle(tp);

	if (!rng_below(model->bed.rng, 3))
		us_tcp_sendmsg(fast, tp, text, rng_below(model->bed.rng, sizeof(text)), fast->now_us,
			       fast->genid);
	model->open[i] = NULL;
	model->closed[i] = 0;
	if (us_tcp_close(fast, tp, fast->now_us, fast->genid, 7)) {
		CHECK((tp->state == 4 || tp->state == 9) && tp->fin_queued && tp->sockopts == 7);
		CHECK(tp->snd_nxt == tp->write_seq && tp->packets_out);
		model->closed[i] = handle;
	} else {
		free_sock(model, tp);
	}
}

/* What the peer's TCP says: all, or nearly, that it has heard; a FIN, or none. */
static uint32_t build(struct model *model, uint8_t *frame, uint32_t i)
{
	struct rng *rng = model->bed.rng;
	const struct us_tcp_sock *tp = us_tcp_sock_at(model->bed.fast, model->closed[i]);
	const struct us_timewait_sock *tw = us_twsk_lookup(model->bed.fast, TCP_BED_OURS, 80,
							   TCP_BED_THEIRS, (uint16_t)(FIRST_PORT + i));
	const uint32_t snd_nxt = tp ? tp->snd_nxt : tw ? tw->snd_nxt : 0;
	const uint32_t rcv_nxt = tp ? tp->rcv_nxt : tw ? tw->rcv_nxt : 0;
	const bool tstamp_ok = tp ? tp->tstamp_ok : tw && tw->tstamp_ok;
	uint8_t *th = frame + 34;

	memset(th, 0, 32);
	put16(th, FIRST_PORT + i);
	put16(th + 2, 80);
	put32(th + 4, rcv_nxt - !rng_below(rng, 10));
	put32(th + 8, snd_nxt - (rng_below(rng, 4) ? 0 : rng_below(rng, 3)));
	th[12] = tstamp_ok ? 0x80 : 0x50;
	th[13] = (uint8_t)(ACK | (rng_below(rng, 2) ? FIN : 0));
	put16(th + 14, 65535);
	if (tstamp_ok) {
		put32(th + 20, 0x0101080a);
		put32(th + 24, (tp ? tp->ts_recent : tw->ts_recent) - !rng_below(rng, 9));
		put32(th + 28, rng_below(rng, 1000));
	}
	return tcp_bed_frame(frame, TCP_BED_THEIRS, rng_below(rng, 20) ? 0 : 7, 0);
}

static void make_batch(struct model *model, uint32_t count)
{
	struct rng *rng = model->bed.rng;

	for (uint32_t n = 0; n < count; n++) {
		uint8_t *frame = (uint8_t *)us_mem_base(model->bed.mem) + model->pages[n];

		memset(&model->frames[n], 0, sizeof(model->frames[n]));
		model->frames[n].addr = model->pages[n];
		model->frames[n].len = build(model, frame, rng_below(rng, SOCKS));
		model->frames[n].ip_summed = 1;
		if (!rng_below(rng, 20))
			frame[rng_below(rng, 66)] ^= (uint8_t)(1 + rng_below(rng, 255));
		if (!rng_below(rng, 30))
			model->frames[n].len = rng_below(rng, model->frames[n].len + 1);
	}
}

/* Everything that is there is counted, and nothing else is. */
static void check(struct model *model)
{
	struct us_timewait_sock *tws[SOCKS];
	const uint32_t waiting = us_twsk_list(model->bed.fast, tws, SOCKS);
	struct us_slabinfo info;
	uint32_t orphans = 0, open = 0;

	for (uint32_t i = 0; i < SOCKS; i++) {
		orphans += us_tcp_sock_at(model->bed.fast, model->closed[i]) != NULL;
		open += model->open[i] != NULL;
	}
	CHECK(model->bed.fast->orphans == orphans);
	CHECK(us_tcp_hashed(model->bed.fast) == orphans + open);
	us_kmem_cache_info(model->bed.tcp, &info);
	CHECK(info.active_objs == orphans + open);
	us_kmem_cache_info(model->bed.tw, &info);
	CHECK(info.active_objs == waiting && us_twsk_count(model->bed.fast) == waiting);
	CHECK(waiting <= model->bed.fast->max_tw_buckets);
	CHECK(model->bed.dst.refs == orphans + waiting);
	CHECK(model->bed.fast->shares[model->share].count == orphans + open + waiting);
	for (uint32_t n = 0; n < waiting; n++) {
		CHECK(tws[n]->substate == 5 || tws[n]->substate == 6);
		CHECK(tws[n]->bind_share == model->share && tws[n]->dst == &model->bed.dst);
	}
}

/* A port is used again once nobody is on it. */
static void reopen_some(struct model *model)
{
	for (uint32_t i = 0; i < SOCKS; i++) {
		if (model->open[i]) {
			if (rng_below(model->bed.rng, 2))
				close_sock(model, i);
		} else if (!us_tcp_lookup(model->bed.fast, TCP_BED_OURS, 80, TCP_BED_THEIRS,
					  (uint16_t)(FIRST_PORT + i)) &&
			   !us_twsk_lookup(model->bed.fast, TCP_BED_OURS, 80, TCP_BED_THEIRS,
					   (uint16_t)(FIRST_PORT + i))) {
			open_sock(model, i);
		}
	}
}

static void step(struct model *model)
{
	const uint32_t count = 1 + rng_below(model->bed.rng, BATCH);
	struct us_tcp_event event;
	int left;

	reopen_some(model);
	check(model);
	make_batch(model, count);
	model->bed.fast->now_us += rng_below(model->bed.rng, 20) ? 10000 : 70000000;
	model->bed.hh.usable = rng_below(model->bed.rng, 20) != 0;
	model->bed.metrics.forgotten = !rng_below(model->bed.rng, 20);
	left = us_tcp_fast_rx(model->bed.fast, tcp_bed_mac, model->frames, (int)count);
	CHECK(left >= 0 && left <= (int)count);
	check(model);
	us_twsk_expire(model->bed.fast, 1 + rng_below(model->bed.rng, SOCKS));
	while (us_tcp_timer_expired(model->bed.fast, &event))
		CHECK(us_tcp_sock_at(model->bed.fast, event.handle) && event.what);
	check(model);
	if (!rng_below(model->bed.rng, 3))
		tcp_bed_renew_ring(&model->bed);
}

HARNESS_TEST(tcp_ends)
{
	struct model *model = calloc(1, sizeof(*model));
	struct us_tcp_fast *fast;

	tcp_bed_open(&model->bed, rng, 32 << 20);
	fast = model->bed.fast;
	fast->max_orphans = rng_below(rng, 4) ? 1000 : 5 + rng_below(rng, SOCKS);
	fast->max_tw_buckets = rng_below(rng, 4) ? 1000 : rng_below(rng, SOCKS);
	fast->fin_timeout_us = 1000000ULL * rng_below(rng, 100);
	fast->no_metrics_save = rng_below(rng, 2);
	model->bed.dst.metrics = &model->bed.metrics;
	model->share = us_bind_share_alloc(fast, 80);
	for (uint32_t n = 0; n < BATCH; n++)
		model->pages[n] = us_alloc_pages(model->bed.mem, 0);
	for (uint32_t n = 0; n < STEPS; n++)
		step(model);
	CHECK(fast->mib.fast_rx && fast->mib.punted);
	CHECK(fast->mib.TW || fast->mib.TCPTimeWaitOverflow);
	for (uint32_t i = 0; i < SOCKS; i++) {
		struct us_tcp_sock *tp = us_tcp_sock_at(fast, model->closed[i]);

		if (model->open[i] || tp)
			free_sock(model, model->open[i] ? model->open[i] : tp);
	}
	fast->now_us += 10000000000;
	us_twsk_expire(fast, UINT32_MAX);
	CHECK(!fast->orphans && !us_twsk_count(fast) && !model->bed.dst.refs);
	CHECK(us_bind_share_emptied(fast) == model->share);
	for (uint32_t n = 0; n < BATCH; n++)
		CHECK(us_put_page(model->bed.mem, model->pages[n]) == 0);
	tcp_bed_close(&model->bed);
	free(model);
}
