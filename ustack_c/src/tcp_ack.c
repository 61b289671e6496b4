/*
 * The ACK of new data while nothing is in doubt (tcp_ack, _ack_in_order in ustack/tcp/ack.py):
 * all of it, or all but timers and cwnd if Python has to look at
 * those: then once for all ACKs of a batch.
 */

#include "tcp_internal.h"

#define US_MAX_SAMPLE_US (1U << 28)
#define US_TS_MAX_MS (0x80000000U / 1000)
#define US_WINDOW_SMALL (4U * UINT16_MAX)	/* below it a larger window changes the MSS's bound */

static uint32_t us_tcp_seg_window(const struct us_tcp_seg *seg)
{
	return seg->window << seg->tp->snd_wscale;
}

/*
 * Whether the ACK acknowledges nothing, or plainly something: nothing lost, repeated, probed.
 * Of nothing while something is in flight it might be a duplicate, unless it came with text.
 */
bool us_tcp_ack_is_plain(const struct us_tcp_seg *seg)
{
	const struct us_tcp_sock *tp = seg->tp;
	const uint32_t window = us_tcp_seg_window(seg);

	if (seg->ack == tp->snd_una && !seg->fin)
		return seg->len && window == tp->snd_wnd;
	if (window > tp->max_window && tp->max_window < US_WINDOW_SMALL)
		return false;
	if (seg->ack == tp->snd_una)
		return tp->snd_una == tp->write_seq;
	if (!us_after(seg->ack, tp->snd_una) || us_after(seg->ack, tp->snd_nxt))
		return false;
	return tp->ca_state == US_TCP_CA_OPEN && tp->txlog.len &&
	       (tp->bytes_acked || tp->snd_una != tp->iss) && !tp->sacked_out && !tp->lost_out && !tp->retrans_out;
}

/* tcp_update_rtt_min */
static void us_tcp_update_rtt_min(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				  uint32_t rtt_us)
{
	if (rtt_us > tp->rtt_min_us && tp->rtt_min_us &&
	    fast->now_us - tp->rtt_min_stamp_us <= fast->min_rtt_wlen_us)
		return;
	tp->rtt_min_us = us_min32(us_max32(rtt_us, 1), US_MAX_SAMPLE_US);
	tp->rtt_min_stamp_us = fast->now_us;
}

/* The first sample of a connection (RFC 6298 2.2). */
static void us_tcp_first_rtt(struct us_tcp_sock *tp, uint32_t m)
{
	tp->srtt_us = m << 3;
	tp->mdev_us = m << 1;
	tp->rttvar_us = us_max32(tp->mdev_us, tp->icsk_rto_min_us);
	tp->mdev_max_us = tp->rttvar_us;
	tp->rtt_seq = tp->snd_nxt;
}

/* tcp_rtt_estimator (RFC 6298 2.3) */
static void us_tcp_rtt_estimator(struct us_tcp_sock *tp, uint32_t rtt_us)
{
	int64_t m = us_min32(us_max32(rtt_us, 1), US_MAX_SAMPLE_US);
	int64_t srtt;

	if (!tp->srtt_us) {
		us_tcp_first_rtt(tp, (uint32_t)m);
		return;
	}
	m -= tp->srtt_us >> 3;
	srtt = (int64_t)tp->srtt_us + m;
	tp->srtt_us = srtt > 1 ? (uint32_t)srtt : 1;
	if (m < 0) {
		m = -m - (tp->mdev_us >> 2);
		if (m > 0)
			m >>= 3;
	} else {
		m -= tp->mdev_us >> 2;
	}
	tp->mdev_us = (uint32_t)((int64_t)tp->mdev_us + m);
	if (tp->mdev_us > tp->mdev_max_us) {
		tp->mdev_max_us = tp->mdev_us;
		tp->rttvar_us = us_max32(tp->rttvar_us, tp->mdev_us);
	}
	if (us_after(tp->snd_una, tp->rtt_seq)) {
		if (tp->mdev_max_us < tp->rttvar_us)
			tp->rttvar_us -= (tp->rttvar_us - tp->mdev_max_us) >> 2;
		tp->rtt_seq = tp->snd_nxt;
		tp->mdev_max_us = tp->icsk_rto_min_us;
	}
}

/* tcp_ack_update_rtt and tcp_set_rto */
void us_tcp_ack_update_rtt(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			   uint32_t sample_us, uint32_t newest_us)
{
	us_tcp_update_rtt_min(fast, tp, newest_us);
	us_tcp_rtt_estimator(tp, sample_us);
	tp->rto_us = us_min32((tp->srtt_us >> 3) + tp->rttvar_us, tp->icsk_rto_max_us);
	tp->backoff = 0;
}

/* tcp_tsecr_rtt: from the echoed timestamp, -1 if there is none. */
static int64_t us_tcp_tsecr_rtt(const struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;
	uint32_t delta_ms;

	if (!tp->tstamp_ok || !seg->tsecr)
		return -1;
	delta_ms = (uint32_t)(fast->now_us / 1000) + tp->tsoffset - seg->tsecr;
	if (delta_ms >= US_TS_MAX_MS)
		return -1;
	delta_ms = us_max32(delta_ms, 1) * 1000;
	us_tcp_ack_update_rtt(fast, tp, delta_ms, delta_ms);
	return delta_ms;
}

/* A time since @then, as far as 32 bits of microseconds go. */
uint32_t us_tcp_elapsed(const struct us_tcp_fast *fast, uint64_t then)
{
	const uint64_t elapsed_us = fast->now_us - then;

	return elapsed_us < UINT32_MAX ? (uint32_t)elapsed_us : UINT32_MAX;
}

/* tcp_rtt_of_log: what the log says of the newest segment acknowledged, -1 if nothing. */
static int64_t us_tcp_rtt_of_log(const struct us_tcp_fast *fast, const struct us_tcp_seg *seg,
				 const struct us_tx_acked *acked)
{
	struct us_tcp_sock *tp = seg->tp;

	if (acked->ambiguous)
		return us_tcp_tsecr_rtt(fast, seg);
	tp->rack_rtt_us = us_tcp_elapsed(fast, acked->last_us);
	us_tcp_ack_update_rtt(fast, tp, us_tcp_elapsed(fast, acked->first_us), tp->rack_rtt_us);
	return tp->rack_rtt_us;
}

/* Leave timers, cwnd and what may go now to Python, for this ACK and the others of the batch. */
static void us_tcp_leave_ack(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t pkts,
			     int64_t rtt_us, uint32_t prior_packets)
{
	struct us_tcp_event *event = us_tcp_event(fast, tp, US_TCP_EV_ACKED);

	if (!pkts)
		return;
	if (!event->pkts_acked)
		event->prior_packets = prior_packets;
	event->pkts_acked += pkts;
	event->rtt_us = rtt_us;
}

/* Take the ACK of nothing new that a FIN carries while nothing is in flight. */
void us_tcp_ack_again(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;
	const uint32_t window = us_tcp_seg_window(seg);

	if (us_after(seg->seq, tp->snd_wl1) ||
	    (seg->seq == tp->snd_wl1 && (window > tp->snd_wnd || !window))) {
		tp->snd_wl1 = seg->seq;
		tp->snd_wnd = window;
		tp->max_window = us_max32(tp->max_window, window);
	}
	tp->probes_out = 0;
	tp->rcv_tstamp_us = fast->now_us;
}

/*
 * Take a plain ACK of new data: the window, SND.UNA, the send queue, what is out, the RTT.
 * False: the rest is Python's, which has its event.
 */
bool us_tcp_ack(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;
	const uint32_t prior_packets = tp->packets_out;
	const uint32_t una = tp->snd_una;
	struct us_tx_acked acked;
	int64_t rtt_us = -1;

	tp->snd_wl1 = seg->seq;
	tp->snd_wnd = us_tcp_seg_window(seg);
	tp->max_window = us_max32(tp->max_window, tp->snd_wnd);
	us_bq_drop(fast->mem, &tp->write_queue,
		   seg->ack - una - (tp->fin_queued && seg->ack == tp->write_seq));
	tp->bytes_acked += seg->ack - una;
	tp->snd_una = seg->ack;
	tp->retransmits = 0;
	tp->probes_out = 0;
	tp->rcv_tstamp_us = fast->now_us;
	if (us_tcp_tx_ack(fast->mem, tp, una, seg->ack, &acked)) {
		rtt_us = us_tcp_rtt_of_log(fast, seg, &acked);
		tp->delivered += acked.pkts;
		fast->mib.TCPDelivered += acked.pkts;
	}
	if (!us_tcp_has_event(fast, tp, US_TCP_EV_ACKED | US_TCP_EV_XMIT) &&
	    (!acked.pkts || us_tcp_acked_in_order(fast, tp, acked.pkts, rtt_us)))
		return true;
	us_tcp_leave_ack(fast, tp, acked.pkts, rtt_us, prior_packets);
	return false;
}
