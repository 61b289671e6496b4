/*
 * TCP's fast path against frames of every kind: what it takes is the stream, in order, byte
 * for byte; what it leaves has changed nothing; every page comes back.
 */

#include <string.h>

#include "tcp_bed.h"

#define SOCKS 5
#define BATCH 64
#define STEPS 200

struct model {
	struct tcp_bed bed;
	struct us_tcp_sock *socks[SOCKS];
	struct us_igb_rx_buffer buffers[BATCH];	/* every other one is large */
	struct us_igb_rx_frame frames[BATCH];
	uint32_t sender[BATCH];
};

static uint8_t pattern(uint32_t seq)
{
	return (uint8_t)(seq * 2654435761U >> 24);
}

/* Letters of several connections in one call: what it says has been taken is what is queued. */
static void send_letters(struct model *model, struct us_tcp_sock *tp)
{
	static const uint8_t text[3 * 4096];
	const uint32_t count = 1 + rng_below(model->bed.rng, 3);
	const uint32_t before = tp->write_queue.len;
	uint8_t letters[3 * (sizeof(uint64_t) + sizeof(uint32_t))];
	const uint64_t handle = us_tcp_handle(tp);
	uint32_t lens[3], len = 0, taken;
	uint64_t done;

	for (uint32_t i = 0; i < count; i++) {
		lens[i] = rng_below(model->bed.rng, 4096);
		len += lens[i];
		memcpy(letters + i * sizeof(handle), &handle, sizeof(handle));
	}
	memcpy(letters + count * sizeof(handle), lens, count * sizeof(lens[0]));
	done = us_tcp_send_letters(model->bed.fast, letters, count, text, len, model->bed.fast->now_us,
				   model->bed.fast->genid);
	CHECK((uint32_t)done <= count);
	taken = (uint32_t)(done >> 32);
	CHECK(!taken || taken < lens[(uint32_t)done]);
	for (uint32_t i = 0; i < (uint32_t)done; i++)
		taken += lens[i];
	CHECK(tp->write_queue.len == before + taken);
}

/* Let a connection have sent a few super-frames, as its application and Python would, or not yet. */
static void send_some(struct model *model, struct us_tcp_sock *tp)
{
	static const uint8_t bytes[14480];
	uint32_t n = rng_below(model->bed.rng, 4);

	if (!rng_below(model->bed.rng, 4))
		send_letters(model, tp);
	if (rng_below(model->bed.rng, 2)) {
		const uint32_t len = rng_below(model->bed.rng, sizeof(bytes));
		const uint32_t before = tp->write_queue.len;
		int64_t taken = us_tcp_sendmsg(model->bed.fast, tp, bytes, len,
					       model->bed.fast->now_us, model->bed.fast->genid);

		if (taken > 0)
			taken &= ~US_TCP_CALL_MORE;
		CHECK(taken <= (int64_t)len);
		CHECK(tp->write_queue.len == before + (taken > 0 ? (uint32_t)taken : 0));
	}
	for (; n; n--) {
		const uint32_t len = 1 + rng_below(model->bed.rng, sizeof(bytes));

		if (us_bq_append(model->bed.mem, &tp->write_queue, bytes, len) != len)
			return;
		tp->write_seq += len;
		if (tp->snd_nxt + len != tp->write_seq || !rng_below(model->bed.rng, 3))
			continue;
		tp->snd_nxt = tp->write_seq;
		CHECK(us_tcp_tx_push(model->bed.mem, tp, tp->snd_nxt, (len + 1447) / 1448, 1448,
				     rng_below(model->bed.rng, 5) ? model->bed.fast->now_us : 0) == 0);
	}
}

static struct us_tcp_sock *open_sock(struct model *model, uint32_t i)
{
	struct us_tcp_sock *tp = us_kmem_cache_zalloc(model->bed.tcp);

	tp->saddr = TCP_BED_OURS;
	tp->daddr = TCP_BED_THEIRS;
	tp->sport = 80;
	tp->dport = (uint16_t)(40000 + i);
	tp->state = 1;
	tp->tstamp_ok = (uint8_t)rng_below(model->bed.rng, 2);
	tp->rcv_nxt = tp->rcv_wup = tp->copied_seq = tp->last_ack_sent = (uint32_t)rng_next(model->bed.rng);
	tp->rcv_wnd = tp->rcv_ssthresh = tp->window_clamp = 65536 + rng_below(model->bed.rng, 200000);
	tp->rcv_wscale = (uint8_t)rng_below(model->bed.rng, 8);
	tp->sk_rcvbuf = 131072 + rng_below(model->bed.rng, 300000);
	tp->snd_una = tp->snd_nxt = tp->write_seq = (uint32_t)rng_next(model->bed.rng);
	tp->snd_wnd = tp->max_window = 1 << 20;
	tp->bytes_acked = 1;
	tp->scaling_ratio = 128;
	tp->advmss = tp->ack_rcv_mss = 1448;
	tp->rto_us = tp->icsk_rto_min_us = 200000;
	tp->icsk_rto_max_us = 120000000;
	tp->mss_cache = 1448;
	tp->pmtu_mss = 1460;
	tp->snd_cwnd = 1 + rng_below(model->bed.rng, 60);
	tp->snd_ssthresh = rng_below(model->bed.rng, 2) ? 0x7fffffff : 1 + rng_below(model->bed.rng, 100);
	tp->sk_sndbuf = 16384;
	tp->sack_ok = (uint8_t)rng_below(model->bed.rng, 2);
	tp->ca_kind = (uint8_t)rng_below(model->bed.rng, 3);
	tp->bictcp = rng_below(model->bed.rng, 4) ? us_kmem_cache_zalloc(model->bed.bictcp) : NULL;
	tp->place = i + 1;
	tp->dst = &model->bed.dst;
	us_tcp_hash(model->bed.fast, tp);
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

	return tp->snd_una + rng_below(model->bed.rng, out + 1) + (rng_below(model->bed.rng, 20) ? 0 : 5000);
}

/* The next segment that the connection's peer would send, from @seq on. */
static uint32_t build(struct model *model, uint8_t *frame, const struct us_tcp_sock *tp,
		      uint32_t seq, uint32_t len)
{
	const uint32_t options = tp->tstamp_ok ? 12 : 0;
	uint8_t *th = frame + 34;

	memset(th, 0, 20 + options);
	put16(th, tp->dport);
	put16(th + 2, tp->sport);
	put32(th + 4, seq);
	put32(th + 8, rng_below(model->bed.rng, 3) ? tp->snd_una : some_ack(model, tp));
	th[12] = (uint8_t)((20 + options) << 2);
	th[13] = (uint8_t)(0x10 | (rng_below(model->bed.rng, 8) ? 0 : 0x08) |
			   (rng_below(model->bed.rng, 60) ? 0 : 0x01));
	put16(th + 14, 65535);
	if (options) {
		put32(th + 20, 0x0101080a);
		put32(th + 24, tp->ts_recent + rng_below(model->bed.rng, 3));
		put32(th + 28, rng_below(model->bed.rng, 1000));
	}
	for (uint32_t i = 0; i < len; i++)
		frame[TCP_BED_HEADERS + options + i] = pattern(seq + i);
	return tcp_bed_frame(frame, tp->daddr, len, rng_below(model->bed.rng, 3));
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
		uint8_t *frame = (uint8_t *)us_mem_base(model->bed.mem) + buffer->page;
		uint32_t len = rng_below(model->bed.rng, 3) ? 1448 : rng_below(model->bed.rng, 3000);
		uint32_t seq;

		if (!rng_below(model->bed.rng, 6))
			which = rng_below(model->bed.rng, SOCKS);
		if (is_large(i) && rng_below(model->bed.rng, 2))
			len = rng_below(model->bed.rng, 64000);
		seq = next[which];
		if (!rng_below(model->bed.rng, 20))
			seq += rng_below(model->bed.rng, 4000) - 2000;
		model->frames[i].addr = buffer->page;
		model->frames[i].large = is_large(i) ? buffer : NULL;
		model->frames[i].len = build(model, frame, model->socks[which], seq, len);
		model->frames[i].ip_summed = rng_below(model->bed.rng, 2);
		model->frames[i].gso_size = len < 3000 && rng_below(model->bed.rng, 10) ? 0 : 1448;
		next[which] = seq + len;
		if (!rng_below(model->bed.rng, 10))
			frame[rng_below(model->bed.rng, TCP_BED_HEADERS)] ^= (uint8_t)(1 + rng_below(model->bed.rng, 255));
		if (!rng_below(model->bed.rng, 20))
			model->frames[i].len = rng_below(model->bed.rng, model->frames[i].len + 1);
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
	if (rng_below(model->bed.rng, 3))
		return;
	tp->rcv_rtt_us = rng_below(model->bed.rng, 100000);
	got = (uint32_t)us_tcp_recvmsg(model->bed.fast, tp, bytes, rng_below(model->bed.rng, sizeof(bytes)),
				       model->bed.fast->now_us, model->bed.fast->genid);
	if (!got && !tp->receive_queue.len)
		return;
	if (!got) {
		got = us_bq_read(model->bed.mem, &tp->receive_queue, bytes, queued);
		tp->copied_seq += got;
	}
	CHECK(tp->receive_queue.len == queued - got);
	for (uint32_t i = 0; i < got; i++)
		CHECK(bytes[i] == pattern(seq + i));
}

static void step(struct model *model)
{
	const uint32_t count = 1 + rng_below(model->bed.rng, BATCH);
	struct us_tcp_event event;
	uint64_t before = 0, after = 0;
	int left;

	for (uint32_t s = 0; s < SOCKS; s++) {
		before += model->socks[s]->bytes_received;
		model->socks[s]->nospace = rng_below(model->bed.rng, 2) & 1;
		if (!rng_below(model->bed.rng, 20) && model->socks[s]->bictcp)
			model->socks[s]->bictcp->last_cwnd = model->socks[s]->snd_cwnd;
		model->socks[s]->ca_cnt = 1 + rng_below(model->bed.rng, 50);
		send_some(model, model->socks[s]);
	}
	make_batch(model, count);
	model->bed.fast->now_us += rng_below(model->bed.rng, 100000);
	model->bed.hh.usable = rng_below(model->bed.rng, 20) != 0;
	left = us_tcp_fast_rx(model->bed.fast, tcp_bed_mac, model->frames, (int)count);
	CHECK(left >= 0 && left <= (int)count);
	CHECK(model->bed.fast->nevents <= SOCKS);
	for (uint32_t s = 0; s < SOCKS; s++) {
		after += model->socks[s]->bytes_received;
		check_and_read(model, model->socks[s]);
	}
	CHECK(left < (int)count || after == before);
	CHECK(model->bed.hh.usable || left == (int)count);
	for (uint32_t n = 0; us_tcp_timer_expired(model->bed.fast, &event); n++)
		CHECK(n < 2 * SOCKS && event.handle && event.handle <= SOCKS && event.what);
	if (!rng_below(model->bed.rng, 10))
		tcp_bed_renew_ring(&model->bed);
}

HARNESS_TEST(tcp_fast_path)
{
	struct model *model = calloc(1, sizeof(*model));
	struct us_tcp_fast *fast;

	tcp_bed_open(&model->bed, rng, 64 << 20);
	fast = model->bed.fast;
	fast->gro = rng_below(rng, 4) != 0;
	fast->may_xmit = rng_below(rng, 8) != 0;
	fast->early_retrans = rng_below(rng, 2);
	fast->tso_win_divisor = rng_below(rng, 2) ? 3 : 0;
	model->bed.queue.can_cut = model->bed.queue.can_sum && rng_below(rng, 2);
	model->bed.queue.gso = rng_below(rng, 2);
	for (uint32_t s = 0; s < SOCKS; s++)
		model->socks[s] = open_sock(model, s);
	for (uint32_t i = 0; i < BATCH; i++)
		model->buffers[i].page = us_alloc_pages(model->bed.mem, is_large(i) ? 4 : 0);
	for (uint32_t i = 0; i < STEPS; i++)
		step(model);
	CHECK((fast->mib.fast_rx || !fast->may_xmit) && fast->mib.punted);
	for (uint32_t s = 0; s < SOCKS; s++)
		tcp_bed_free_sock(&model->bed, model->socks[s]);
	for (uint32_t i = 0; i < BATCH; i++)
		CHECK(us_put_page(model->bed.mem, model->buffers[i].page) == 0);
	tcp_bed_close(&model->bed);
	free(model);
}
