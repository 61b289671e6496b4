/*
 * TCP's fast path against frames of every kind: what it takes is the stream, in order, byte
 * for byte; what it leaves has changed nothing; every page comes back.
 */

#include <string.h>

#include "checksum.h"
#include "harness.h"
#include "tcp_fast.h"

#define SOCKS 5
#define BATCH 64
#define STEPS 200
#define HEADERS 54

static const uint8_t MAC[6] = {2, 0, 0, 0, 0, 2};

struct model {
	struct rng *rng;
	struct us_mem *mem;
	struct us_kmem_cache *cache;
	struct us_tcp_fast *fast;
	struct us_tcp_sock *socks[SOCKS];
	struct us_bictcp bictcp[SOCKS];
	struct us_igb_tx_ring *ring;
	struct us_xmit_queue queue;
	struct us_hh hh;
	struct us_tcp_dst dst;
	struct us_igb_rx_buffer buffers[BATCH];	/* every other one is large */
	struct us_igb_rx_frame frames[BATCH];
	uint32_t sender[BATCH];
};

static uint8_t pattern(uint32_t seq)
{
	return (uint8_t)(seq * 2654435761U >> 24);
}

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

/* Let a connection have sent a few super-frames, as its application and Python would, or not yet. */
static void send_some(struct model *model, struct us_tcp_sock *tp)
{
	static const uint8_t bytes[14480];
	uint32_t n = rng_below(model->rng, 4);

	if (rng_below(model->rng, 2)) {
		const uint32_t len = rng_below(model->rng, sizeof(bytes));
		const uint32_t before = tp->write_queue.len;
		const int64_t taken = us_tcp_sendmsg(model->fast, tp, bytes, len,
						     model->fast->now_us, model->fast->genid);

		CHECK(taken <= (int64_t)len);
		CHECK(tp->write_queue.len == before + (taken > 0 ? (uint32_t)taken : 0));
	}
	for (; n; n--) {
		const uint32_t len = 1 + rng_below(model->rng, sizeof(bytes));

		if (us_bq_append(model->mem, &tp->write_queue, bytes, len) != len)
			return;
		tp->write_seq += len;
		if (tp->snd_nxt + len != tp->write_seq || !rng_below(model->rng, 3))
			continue;
		tp->snd_nxt = tp->write_seq;
		CHECK(us_tcp_tx_push(model->mem, tp, tp->snd_nxt, (len + 1447) / 1448, 1448,
				     rng_below(model->rng, 5) ? model->fast->now_us : 0) == 0);
	}
}

static struct us_tcp_sock *open_sock(struct model *model, uint32_t i)
{
	struct us_tcp_sock *tp = us_kmem_cache_zalloc(model->cache);

	tp->saddr = 0x0a000002;
	tp->daddr = 0x0a000001;
	tp->sport = 80;
	tp->dport = (uint16_t)(40000 + i);
	tp->state = 1;
	tp->tstamp_ok = (uint8_t)rng_below(model->rng, 2);
	tp->rcv_nxt = tp->rcv_wup = tp->copied_seq = tp->last_ack_sent = (uint32_t)rng_next(model->rng);
	tp->rcv_wnd = tp->rcv_ssthresh = tp->window_clamp = 65536 + rng_below(model->rng, 200000);
	tp->rcv_wscale = (uint8_t)rng_below(model->rng, 8);
	tp->sk_rcvbuf = 131072 + rng_below(model->rng, 300000);
	tp->snd_una = tp->snd_nxt = tp->write_seq = (uint32_t)rng_next(model->rng);
	tp->snd_wnd = tp->max_window = 1 << 20;
	tp->bytes_acked = 1;
	tp->scaling_ratio = 128;
	tp->advmss = tp->ack_rcv_mss = 1448;
	tp->rto_us = tp->icsk_rto_min_us = 200000;
	tp->icsk_rto_max_us = 120000000;
	tp->mss_cache = 1448;
	tp->pmtu_mss = 1460;
	tp->snd_cwnd = 1 + rng_below(model->rng, 60);
	tp->snd_ssthresh = rng_below(model->rng, 2) ? 0x7fffffff : 1 + rng_below(model->rng, 100);
	tp->sk_sndbuf = 16384;
	tp->sack_ok = (uint8_t)rng_below(model->rng, 2);
	tp->ca_kind = (uint8_t)rng_below(model->rng, 3);
	tp->bictcp = rng_below(model->rng, 4) ? &model->bictcp[i] : NULL;
	tp->place = i + 1;
	tp->dst = &model->dst;
	us_tcp_hash(model->fast, tp);
	return tp;
}

static int is_large(uint32_t frame)
{
	return frame & 1;
}

/* Mostly of what is out, sometimes of what is not. */
static uint32_t some_ack(struct model *model, const struct us_tcp_sock *tp)
{
	const uint32_t out = tp->snd_nxt - tp->snd_una;

	return tp->snd_una + rng_below(model->rng, out + 1) + (rng_below(model->rng, 20) ? 0 : 5000);
}

/* The next segment that the connection's peer would send, from @seq on. */
static uint32_t build(struct model *model, uint8_t *frame, const struct us_tcp_sock *tp,
		      uint32_t seq, uint32_t len)
{
	const uint32_t options = tp->tstamp_ok ? 12 : 0;
	const uint32_t tot_len = 40 + options + len;
	uint8_t *iph = frame + 14;
	uint8_t *th = frame + 34;

	memset(frame, 0, HEADERS + options);
	memcpy(frame, MAC, 6);
	put16(frame + 12, 0x0800);
	iph[0] = 0x45;
	put16(iph + 2, tot_len);
	put16(iph + 4, rng_below(model->rng, 3));
	put16(iph + 6, 0x4000);
	iph[8] = 64;
	iph[9] = 6;
	put32(iph + 12, tp->daddr);
	put32(iph + 16, tp->saddr);
	put16(iph + 10, us_ip_fast_csum(iph, 20));
	put16(th, tp->dport);
	put16(th + 2, tp->sport);
	put32(th + 4, seq);
	put32(th + 8, rng_below(model->rng, 3) ? tp->snd_una : some_ack(model, tp));
	th[12] = (uint8_t)((20 + options) << 2);
	th[13] = (uint8_t)(0x10 | (rng_below(model->rng, 8) ? 0 : 0x08) |
			   (rng_below(model->rng, 60) ? 0 : 0x01));
	put16(th + 14, 65535);
	if (options) {
		put32(th + 20, 0x0101080a);
		put32(th + 24, tp->ts_recent + rng_below(model->rng, 3));
		put32(th + 28, rng_below(model->rng, 1000));
	}
	for (uint32_t i = 0; i < len; i++)
		frame[HEADERS + options + i] = pattern(seq + i);
	put16(th + 16, us_csum_tcpudp_magic(tp->saddr, tp->daddr, tot_len - 20, 6,
					    us_csum_partial(th, tot_len - 20, 0)));
	return 14 + tot_len;
}

/* Most frames are the next ones; some are old, early, spoiled in their headers, or nonsense. */
static void make_batch(struct model *model, uint32_t count)
{
	uint32_t next[SOCKS];
	uint32_t which = 0;

	for (uint32_t s = 0; s < SOCKS; s++)
		next[s] = model->socks[s]->rcv_nxt;
	for (uint32_t i = 0; i < count; i++) {
		struct us_igb_rx_buffer *buffer = &model->buffers[i];
		uint8_t *frame = (uint8_t *)us_mem_base(model->mem) + buffer->page;
		uint32_t len = rng_below(model->rng, 3) ? 1448 : rng_below(model->rng, 3000);
		uint32_t seq;

		if (!rng_below(model->rng, 6))
			which = rng_below(model->rng, SOCKS);
		if (is_large(i) && rng_below(model->rng, 2))
			len = rng_below(model->rng, 64000);
		seq = next[which];
		if (!rng_below(model->rng, 20))
			seq += rng_below(model->rng, 4000) - 2000;
		model->frames[i].addr = buffer->page;
		model->frames[i].large = is_large(i) ? buffer : NULL;
		model->frames[i].len = build(model, frame, model->socks[which], seq, len);
		model->frames[i].ip_summed = rng_below(model->rng, 2);
		model->frames[i].gso_size = len < 3000 && rng_below(model->rng, 10) ? 0 : 1448;
		next[which] = seq + len;
		if (!rng_below(model->rng, 10))
			frame[rng_below(model->rng, HEADERS)] ^= (uint8_t)(1 + rng_below(model->rng, 255));
		if (!rng_below(model->rng, 20))
			model->frames[i].len = rng_below(model->rng, model->frames[i].len + 1);
	}
}

/* What has been queued is the stream from where the application is, and it is read. */
static void check_and_read(struct model *model, struct us_tcp_sock *tp)
{
	static uint8_t bytes[1 << 20];
	const uint32_t queued = tp->receive_queue.len;
	const uint32_t seq = tp->copied_seq;
	uint32_t got;

	CHECK(tp->copied_seq + queued + tp->done == tp->rcv_nxt);
	CHECK(queued <= tp->sk_rcvbuf);
	CHECK(tp->write_queue.len == tp->write_seq - tp->snd_una);
	CHECK(tp->snd_nxt - tp->snd_una <= tp->write_queue.len);
	CHECK(!tp->packets_out || tp->txlog.last_end == tp->snd_nxt);
	CHECK((tp->packets_out == 0) == (tp->snd_nxt == tp->snd_una));
	if (rng_below(model->rng, 3))
		return;
	tp->rcv_rtt_us = rng_below(model->rng, 100000);
	got = (uint32_t)us_tcp_recvmsg(model->fast, tp, bytes, rng_below(model->rng, sizeof(bytes)),
				       model->fast->now_us, model->fast->genid);
	if (!got && !tp->receive_queue.len)
		return;
	if (!got) {
		got = us_bq_read(model->mem, &tp->receive_queue, bytes, queued);
		tp->copied_seq += got;
	}
	CHECK(tp->receive_queue.len == queued - got);
	for (uint32_t i = 0; i < got; i++)
		CHECK(bytes[i] == pattern(seq + i));
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
	struct us_tcp_event event;
	uint64_t before = 0, after = 0;
	int left;

	for (uint32_t s = 0; s < SOCKS; s++) {
		before += model->socks[s]->bytes_received;
		model->socks[s]->nospace = rng_below(model->rng, 2) & 1;
		if (!rng_below(model->rng, 20) && model->socks[s]->bictcp)
			model->bictcp[s].last_cwnd = model->socks[s]->snd_cwnd;
		model->socks[s]->ca_cnt = 1 + rng_below(model->rng, 50);
		send_some(model, model->socks[s]);
	}
	make_batch(model, count);
	model->fast->now_us += rng_below(model->rng, 100000);
	model->hh.usable = rng_below(model->rng, 20) != 0;
	left = us_tcp_fast_rx(model->fast, MAC, model->frames, (int)count);
	CHECK(left >= 0 && left <= (int)count);
	CHECK(model->fast->nevents <= SOCKS);
	for (uint32_t s = 0; s < SOCKS; s++) {
		after += model->socks[s]->bytes_received;
		check_and_read(model, model->socks[s]);
	}
	CHECK(left < (int)count || after == before);
	CHECK(model->hh.usable || left == (int)count);
	for (uint32_t n = 0; us_tcp_timer_expired(model->fast, &event); n++)
		CHECK(n < 2 * SOCKS && event.handle && event.handle <= SOCKS && event.what);
	if (!rng_below(model->rng, 10))
		renew_ring(model);
}

HARNESS_TEST(tcp_fast_path)
{
	struct model *model = calloc(1, sizeof(*model));
	const uint8_t key[16] = {1, 2, 3};
	uint32_t first[11], last[11];

	model->rng = rng;
	model->mem = us_mem_create(64 << 20);
	us_mem_buddyinfo(model->mem, first);
	model->cache = us_kmem_cache_create(model->mem, "TCP", sizeof(struct us_tcp_sock));
	model->fast = us_tcp_fast_create(model->mem, key);
	model->fast->rmem_max = 6 << 20;
	model->fast->pingpong_thresh = 1;
	model->fast->gro = rng_below(rng, 4) != 0;
	model->fast->now_us = 1000000;
	model->queue.can_sum = rng_below(rng, 2);
	model->queue.can_cut = model->queue.can_sum && rng_below(rng, 2);
	model->dst.queue = &model->queue;
	model->dst.hh = &model->hh;
	model->dst.mtu = 1500;
	model->dst.gso_max_size = 65536;
	model->queue.gso = rng_below(rng, 2);
	model->fast->on = 1;
	model->fast->may_xmit = rng_below(rng, 8) != 0;
	model->fast->early_retrans = rng_below(rng, 2);
	model->fast->pacing_ss_ratio = 200;
	model->fast->pacing_ca_ratio = 120;
	model->fast->notsent_lowat = UINT32_MAX;
	model->fast->wmem_max = 4 << 20;
	model->fast->moderate_rcvbuf = 1;
	model->fast->tso_rtt_log = 9;
	model->fast->min_tso_segs = 2;
	model->fast->tso_win_divisor = rng_below(rng, 2) ? 3 : 0;
	renew_ring(model);
	for (uint32_t s = 0; s < SOCKS; s++)
		model->socks[s] = open_sock(model, s);
	for (uint32_t i = 0; i < BATCH; i++)
		model->buffers[i].page = us_alloc_pages(model->mem, is_large(i) ? 4 : 0);
	for (uint32_t i = 0; i < STEPS; i++)
		step(model);
	CHECK((model->fast->mib.fast_rx || !model->fast->may_xmit) && model->fast->mib.punted);
	for (uint32_t s = 0; s < SOCKS; s++) {
		us_tcp_unhash(model->fast, model->socks[s]);
		us_tcp_forget_timers(model->fast, model->socks[s]);
		us_bq_purge(model->mem, &model->socks[s]->receive_queue);
		us_bq_purge(model->mem, &model->socks[s]->write_queue);
		us_tcp_tx_purge(model->mem, model->socks[s]);
		CHECK(us_kmem_cache_free(model->cache, model->socks[s]) == 0);
	}
	for (uint32_t i = 0; i < BATCH; i++)
		CHECK(us_put_page(model->mem, model->buffers[i].page) == 0);
	us_igb_free_tx_resources(model->ring);
	us_tcp_fast_destroy(model->fast);
	CHECK(us_kmem_cache_destroy(model->cache) == 0);
	us_mem_buddyinfo(model->mem, last);
	CHECK(memcmp(first, last, sizeof(first)) == 0);
	us_mem_destroy(model->mem);
	free(model);
}
