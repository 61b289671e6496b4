/*
 * What may be sent now (tcp_write_xmit in ustack/tcp/output.py): cut into super-frames and
 * sent, as long as nothing about the connection or its route is out of the ordinary.
 */

#include <errno.h>

#include "arena.h"
#include "tcp_internal.h"

#define US_TCP_NAGLE_CORK 2
#define US_TCP_NAGLE_PUSH 4
#define US_MAX_TCP_HEADER 320
#define US_MIN_MTU 68
#define US_PACING_SHIFT 10	/* a super-frame holds 2**-10 s of the pacing rate */
#define US_DEFER_MAX_US 1000U
#define US_MAX_TSO_DEFERRED_MSS 3
#define US_SKB_SHARED_INFO 320
#define US_SKB_SIZE 256
#define US_INIT_CWND 10

/* Whether all that is peculiar about sending is absent: then Python need not look. */
bool us_tcp_may_xmit(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	if (!fast->on || !fast->may_xmit || !us_tcp_can_send(tp) || tp->slow ||
	    tp->ecn_flags || tp->ca_state != US_TCP_CA_OPEN || !tp->ca_kind || tp->fin_queued)
		return false;
	if ((tp->packets_out && !tp->txlog.len) || tp->ack_pending & US_ACK_NOMEM)
		return false;
	if (!us_tcp_can_transmit(fast, tp) || tp->dst->mtu != tp->pmtu_mss + 40U)
		return false;
	return us_tcp_memory_abounds(fast);
}

/* sk_gso_max_size: how much payload a super-frame may have, 0 if the device takes none */
static uint32_t us_tcp_gso_max_size(const struct us_tcp_sock *tp)
{
	const struct us_xmit_queue *queue = tp->dst->queue;

	return queue->can_cut || queue->gso ? tp->dst->gso_max_size - 1 - US_MAX_TCP_HEADER : 0;
}

/* tcp_size_goal: what a write fills a packet up to */
uint32_t us_tcp_size_goal(const struct us_tcp_sock *tp)
{
	const uint32_t least = US_MIN_MTU - US_TCP_HLEN - (tp->tstamp_ok ? US_TCPOLEN_TSTAMP : 0);
	const uint32_t cutoff = tp->max_window > 536 ? tp->max_window >> 1 : tp->max_window;
	const uint32_t mss = tp->mss_cache;
	uint32_t goal = us_tcp_gso_max_size(tp);

	if (!goal)
		return mss;
	if (cutoff && goal > cutoff)
		goal = us_max32(cutoff, least);
	return us_max32(goal - goal % mss, mss);
}

/* tcp_tso_segs: how many segments a super-frame may have now, never more than a packet holds */
static uint32_t us_tcp_tso_segs(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	const uint32_t most = us_tcp_gso_max_size(tp);
	uint64_t size = tp->sk_pacing_rate >> US_PACING_SHIFT;

	if (!most)
		return 1;
	if (size < most && tp->rtt_min_us && tp->rtt_min_us >> fast->tso_rtt_log < 32)
		size += most >> (tp->rtt_min_us >> fast->tso_rtt_log);
	if (size > most)
		size = most;
	size = us_max32((uint32_t)size / tp->mss_cache, fast->min_tso_segs);
	return us_min32((uint32_t)size, us_max32(most / tp->mss_cache, 1));
}

/* Whether the ACK of what has been out longest is due in a moment. */
static bool us_tcp_ack_is_near(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	const uint32_t srtt_us = tp->srtt_us >> 3;
	const int64_t due_us = (int64_t)(tp->txlog.first_us + srtt_us - fast->now_us);

	return tp->packets_out && due_us <= us_min32(srtt_us >> 1, US_DEFER_MAX_US);
}

/* tcp_tso_should_defer: whether a super-frame waits for the next ACK, which will let more go */
static bool us_tcp_tso_should_defer(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				    uint32_t data, uint32_t max_segs, bool *cwnd_limited)
{
	const int64_t mss = tp->mss_cache;
	const int64_t send_win = (int32_t)(tp->snd_una + tp->snd_wnd - tp->snd_nxt);
	const int64_t cong_win = ((int64_t)tp->snd_cwnd - tp->packets_out) * mss;
	const int64_t limit = send_win < cong_win ? send_win : cong_win;
	const uint32_t packet = us_min32(data, us_tcp_gso_max_size(tp));

	if (fast->now_us - tp->lsndtime_us > US_DEFER_MAX_US)
		return false;
	if (limit >= max_segs * mss || (packet < data && limit >= packet))
		return false;
	if (fast->tso_win_divisor) {
		int64_t window = tp->snd_cwnd * mss;

		if (tp->snd_wnd < window)
			window = tp->snd_wnd;
		if (limit >= window / fast->tso_win_divisor)
			return false;
	} else if (limit > US_MAX_TSO_DEFERRED_MSS * mss) {
		return false;
	}
	if (!us_tcp_ack_is_near(fast, tp))
		return false;
	*cwnd_limited = limit <= packet && cong_win < send_win;
	return true;
}

/* tcp_cwnd_test: segments that may go at once, at most half of cwnd */
static uint32_t us_tcp_cwnd_test(const struct us_tcp_sock *tp)
{
	if (tp->packets_out >= tp->snd_cwnd)
		return 0;
	return us_min32(us_max32(tp->snd_cwnd >> 1, 1), tp->snd_cwnd - tp->packets_out);
}

/* tcp_nagle_check */
static bool us_tcp_nagle_holds(const struct us_tcp_sock *tp, uint32_t len, uint32_t nonagle)
{
	if (len >= tp->mss_cache)
		return false;
	if (nonagle & US_TCP_NAGLE_CORK)
		return true;
	if (nonagle || tp->snd_nxt == tp->snd_una)
		return false;
	return us_after(tp->snd_sml, tp->snd_una) && !us_after(tp->snd_sml, tp->snd_nxt);
}

/* How much goes into the next segment, 0 if nothing may go now (_next_length). */
static uint32_t us_tcp_next_length(const struct us_tcp_sock *tp, uint32_t quota, uint32_t nonagle)
{
	const uint32_t data = tp->write_seq - tp->snd_nxt;
	const uint32_t mss = tp->mss_cache;
	const int64_t room = (int32_t)(tp->snd_una + tp->snd_wnd - tp->snd_nxt);
	uint64_t len = data;
	uint32_t partial;

	if (us_min32(data, mss) > room)
		return 0;
	if (data <= mss)
		return !(nonagle & US_TCP_NAGLE_PUSH) && us_tcp_nagle_holds(tp, data, nonagle) ? 0
											       : data;
	if (len > (uint64_t)quota * mss)
		len = (uint64_t)quota * mss;
	if ((int64_t)len > room)
		len = (uint64_t)room;
	partial = (uint32_t)len % mss;
	if (partial && us_tcp_nagle_holds(tp, partial, nonagle))
		len -= partial;
	return (uint32_t)len;
}

/* tcp_small_queue_check: whether the device has enough of ours; a write of @len bytes is next */
static bool us_tcp_small_queue_check(const struct us_tcp_fast *fast,
				     const struct us_tcp_sock *tp, uint32_t len)
{
	const struct us_xmit_queue *queue = tp->dst->queue;
	uint64_t limit = tp->sk_pacing_rate ? tp->sk_pacing_rate >> US_PACING_SHIFT : UINT64_MAX;

	if (tp->txlog.len <= 1)
		return false;
	if (limit < 2ULL * len)
		limit = 2ULL * len;
	if (limit > fast->limit_output_bytes)
		limit = fast->limit_output_bytes;
	return us_igb_tx_is_above(queue->ring, queue->txq, tp->generation, limit);
}

/* tcp_event_data_sent */
static void us_tcp_event_data_sent(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	tp->lsndtime_us = fast->now_us;
	if (fast->now_us - tp->ack_lrcvtime_us < tp->ack_ato_us && tp->ack_pingpong < UINT8_MAX)
		tp->ack_pingpong++;
}

/* sk_stream_is_writeable: a third of the buffer is free, and little waits unsent */
bool us_tcp_is_writeable(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	const uint64_t lowat = tp->notsent_lowat ? tp->notsent_lowat : fast->notsent_lowat;
	const uint32_t queued = tp->write_queue.len;

	return queued < tp->sk_sndbuf && tp->sk_sndbuf - queued >= queued >> 1 &&
	       (uint64_t)(tp->write_seq - tp->snd_nxt) << 1 < lowat;
}

/* tcp_sndbuf_expand, of a congestion control that wants two windows in the buffer */
void us_tcp_sndbuf_expand(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const uint32_t payload = us_max32(tp->rx_opt_mss, tp->mss_cache);
	const uint32_t segs = us_max32(tp->snd_cwnd, US_INIT_CWND);
	uint64_t per_mss = US_SKB_SIZE;
	uint64_t wanted;

	per_mss += 1ULL << (32 - __builtin_clz(payload + US_MAX_TCP_HEADER + US_SKB_SHARED_INFO - 1));
	wanted = 2 * segs * per_mss;
	if (wanted > tp->sk_sndbuf)
		tp->sk_sndbuf = wanted < fast->wmem_max ? (uint32_t)wanted : fast->wmem_max;
}

/* Room may have come about: grow the buffer, have a writer who waits woken (tcp_check_space). */
void us_tcp_check_space(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (!tp->nospace)
		return;
	if (!tp->sndbuf_locked && !tp->snd_shutdown &&
	    us_tcp_memory_allocated(fast) < fast->mem_limits[0] && tp->packets_out < tp->snd_cwnd) {
		us_tcp_sndbuf_expand(fast, tp);
		tp->snd_cwnd_stamp_us = fast->now_us;
	}
	if (us_tcp_is_writeable(fast, tp)) {
		tp->nospace = 0;
		us_tcp_event(fast, tp, US_TCP_EV_SPACE);
	}
}

/* Send @len bytes at SND.NXT and advance it (tcp_send_new, tcp_transmit_skb); not 0: it cannot. */
static int us_tcp_send_new(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t len)
{
	const uint32_t mss = tp->mss_cache;
	const uint32_t segs = (len + mss - 1) / mss;
	const uint32_t end_seq = tp->snd_nxt + len;
	const bool was_idle = !tp->packets_out;
	struct us_tcp_xmit xmit = {.seq = tp->snd_nxt, .len = len, .flags = US_TCP_ACK};
	int err;

	if (len > mss)
		xmit.gso_size = mss;
	if (len > mss || end_seq == tp->pushed_seq)
		xmit.flags |= US_TCP_PSH;
	if (was_idle)
		us_tcp_ca_tx_start(fast, tp);
	xmit.window = us_tcp_select_window(fast, tp);
	err = us_tcp_transmit(fast, tp, &xmit);
	if (err)
		return err;
	tp->bytes_sent += len;
	tp->data_segs_out += segs;
	us_tcp_event_data_sent(fast, tp);
	us_tcp_event_ack_sent(tp);
	tp->segs_out += segs;
	fast->mib.OutSegs += segs;
	tp->snd_nxt = end_seq;
	if (len % mss)
		tp->snd_sml = end_seq;
	fast->mib.TCPOrigDataSent += segs;
	us_tcp_tx_push(fast->mem, tp, end_seq, end_seq == tp->pushed_seq ? segs | US_TX_PSH : segs,
		       mss, fast->now_us);
	if (was_idle)
		us_tcp_arm_rto(fast, tp);
	us_tcp_check_space(fast, tp);
	return 0;
}

/* tcp_current_ssthresh, of a connection that has lost nothing */
static uint32_t us_tcp_current_ssthresh(const struct us_tcp_sock *tp)
{
	return us_max32(tp->snd_ssthresh, (tp->snd_cwnd >> 1) + (tp->snd_cwnd >> 2));
}

/* tcp_slow_start_after_idle_check: half of cwnd for each RTO of silence (tcp_cwnd_restart) */
static void us_tcp_slow_start_after_idle_check(const struct us_tcp_fast *fast,
					       struct us_tcp_sock *tp)
{
	const uint32_t restart = us_min32(fast->init_cwnd, tp->snd_cwnd);
	int64_t idle_us = (int64_t)(fast->now_us - tp->lsndtime_us);

	if (!fast->slow_start_after_idle || idle_us <= (int64_t)tp->rto_us)
		return;
	tp->snd_ssthresh = us_tcp_current_ssthresh(tp);
	for (idle_us -= tp->rto_us; idle_us > 0 && tp->snd_cwnd > restart; idle_us -= tp->rto_us)
		tp->snd_cwnd >>= 1;
	tp->snd_cwnd = us_max32(tp->snd_cwnd, restart);
	tp->snd_cwnd_stamp_us = fast->now_us;
	tp->snd_cwnd_used = 0;
}

/* tcp_cwnd_application_limited: half way to what was used of cwnd in the last RTO */
static void us_tcp_cwnd_application_limited(const struct us_tcp_fast *fast,
					    struct us_tcp_sock *tp)
{
	const uint32_t win_used = us_max32(tp->snd_cwnd_used, fast->init_cwnd);

	if (!tp->nospace) {
		if (win_used < tp->snd_cwnd) {
			tp->snd_ssthresh = us_tcp_current_ssthresh(tp);
			tp->snd_cwnd = (tp->snd_cwnd + win_used) >> 1;
		}
		tp->snd_cwnd_used = 0;
	}
	tp->snd_cwnd_stamp_us = fast->now_us;
}

/* tcp_cwnd_validate */
static void us_tcp_cwnd_validate(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				 bool cwnd_limited)
{
	const uint32_t in_flight = tp->packets_out;

	cwnd_limited = cwnd_limited || in_flight >= tp->snd_cwnd;
	if (!us_before(tp->snd_una, tp->cwnd_usage_seq) || cwnd_limited ||
	    (!tp->is_cwnd_limited && in_flight > tp->max_in_flight)) {
		tp->is_cwnd_limited = cwnd_limited;
		tp->max_in_flight = in_flight;
		tp->cwnd_usage_seq = tp->snd_nxt;
	}
	if (us_tcp_is_cwnd_limited(tp)) {
		tp->snd_cwnd_used = 0;
		tp->snd_cwnd_stamp_us = fast->now_us;
		return;
	}
	if (in_flight > tp->snd_cwnd_used)
		tp->snd_cwnd_used = in_flight;
	if (fast->slow_start_after_idle && fast->now_us - tp->snd_cwnd_stamp_us >= tp->rto_us)
		us_tcp_cwnd_application_limited(fast, tp);
}

/* What follows once segments are out: was cwnd the limit, and when to look again. */
static void us_tcp_sent(struct us_tcp_fast *fast, struct us_tcp_sock *tp, bool cwnd_limited)
{
	us_tcp_cwnd_validate(fast, tp, cwnd_limited);
	if (!us_tcp_schedule_loss_probe(fast, tp, false) &&
	    tp->icsk_pending == US_ICSK_TIME_LOSS_PROBE)
		us_tcp_rearm_rto(fast, tp);
}

/* Send a FIN alone, behind what is out (tcp_send_fin); not 0, and nothing has changed: Python is to. */
int us_tcp_send_fin(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	struct us_tcp_xmit xmit = {.seq = tp->snd_nxt, .flags = US_TCP_ACK | US_TCP_FIN};
	const bool was_idle = !tp->packets_out;
	int err;

	if (!us_before(tp->snd_nxt, tp->snd_una + tp->snd_wnd) || !us_tcp_cwnd_test(tp))
		return -EAGAIN;
	xmit.window = us_tcp_select_window(fast, tp);
	err = us_tcp_transmit(fast, tp, &xmit);
	if (err)
		return err;
	if (was_idle) {
		us_tcp_slow_start_after_idle_check(fast, tp);
		us_tcp_ca_tx_start(fast, tp);
	}
	us_tcp_event_ack_sent(tp);
	tp->segs_out++;
	fast->mib.OutSegs++;
	tp->fin_queued = 1;
	tp->snd_nxt++;
	tp->write_seq = tp->snd_nxt;
	us_tcp_tx_push(fast->mem, tp, tp->snd_nxt, 1, tp->mss_cache, fast->now_us);
	if (was_idle)
		us_tcp_arm_rto(fast, tp);
	us_tcp_sent(fast, tp, false);
	return 0;
}

/**
 * us_tcp_write_xmit - send what the windows allow (tcp_write_xmit)
 * @fast:    fast path
 * @tp:      connection
 * @nonagle: TCP_NAGLE_*
 *
 * Return: false if Python has to go on, from wherever this has come to.
 */
bool us_tcp_write_xmit(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t nonagle)
{
	const uint32_t prior_packets = tp->packets_out;
	bool cwnd_limited = false;
	bool is_done = true;
	uint32_t max_segs;

	if (tp->snd_nxt == tp->write_seq)
		return true;
	if (!us_tcp_may_xmit(fast, tp))
		return false;
	max_segs = us_tcp_tso_segs(fast, tp);
	if (!prior_packets)
		us_tcp_slow_start_after_idle_check(fast, tp);
	while (is_done && tp->snd_nxt != tp->write_seq) {
		const uint32_t data = tp->write_seq - tp->snd_nxt;
		const uint32_t quota = us_min32(us_tcp_cwnd_test(tp), max_segs);
		const uint32_t len = quota ? us_tcp_next_length(tp, quota, nonagle) : 0;

		if (!len)
			break;
		if (data > tp->mss_cache && max_segs > 1 &&
		    us_tcp_tso_should_defer(fast, tp, data, max_segs, &cwnd_limited))
			break;
		is_done = !us_tcp_small_queue_check(fast, tp, len) &&
			  !us_tcp_send_new(fast, tp, len);
	}
	cwnd_limited = cwnd_limited || tp->packets_out >= tp->snd_cwnd;
	if (tp->packets_out != prior_packets) {
		us_tcp_sent(fast, tp, cwnd_limited);
		return is_done;
	}
	if (cwnd_limited)
		us_tcp_cwnd_validate(fast, tp, cwnd_limited);
	if (is_done && !prior_packets)
		us_tcp_check_probe_timer(fast, tp);
	return is_done;
}
