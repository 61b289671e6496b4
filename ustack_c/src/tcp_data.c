/* Predicted text: the receive queue and when to acknowledge, as ustack/tcp/data.py has them. */

#include "arena.h"
#include "tcp_internal.h"

#define US_MAX_QUICKACKS 16
#define US_TCP_MSS_DEFAULT 536
#define US_TCP_MIN_MSS 88
#define US_RTT_TS_MAX_MS 1000000

/* tcp_incr_quickack */
static void us_tcp_incr_quickack(struct us_tcp_sock *tp)
{
	uint32_t quick = tp->rcv_wnd / (2 * us_max32(tp->ack_rcv_mss, 1));

	quick = us_min32(us_max32(quick, 2), US_MAX_QUICKACKS);
	if (quick > tp->ack_quick)
		tp->ack_quick = (uint8_t)quick;
}

/* tcp_measure_rcv_mss */
static void us_tcp_measure_rcv_mss(struct us_tcp_sock *tp, const struct us_tcp_seg *seg)
{
	const uint32_t last_size = tp->ack_last_seg_size;
	const uint32_t len = seg->gso_size ? seg->gso_size : seg->len;
	const uint32_t hlen = US_TCP_HLEN + (tp->tstamp_ok ? US_TCPOLEN_TSTAMP : 0);

	tp->ack_last_seg_size = 0;
	if (len >= tp->ack_rcv_mss) {
		if (len != tp->ack_rcv_mss)
			us_tcp_update_scaling_ratio(tp, seg->len);
		tp->ack_rcv_mss = (uint16_t)us_min32(len, tp->advmss);
		if (seg->psh)
			tp->ack_pending |= US_ACK_PUSHED;
		return;
	}
	if (len + hlen >= US_TCP_MSS_DEFAULT + US_TCP_HLEN ||
	    (len + hlen >= US_TCP_MIN_MSS + US_TCP_HLEN && !seg->psh)) {
		tp->ack_last_seg_size = (uint16_t)len;
		if (len == last_size) {
			tp->ack_rcv_mss = (uint16_t)len;
			return;
		}
	}
	if (tp->ack_pending & US_ACK_PUSHED)
		tp->ack_pending |= US_ACK_PUSHED2;
	tp->ack_pending |= US_ACK_PUSHED;
}

/* tcp_event_data_recv */
static void us_tcp_event_data_recv(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				   const struct us_tcp_seg *seg)
{
	const uint64_t gap_us = fast->now_us - tp->ack_lrcvtime_us;

	tp->ack_pending |= US_ACK_SCHED;
	us_tcp_measure_rcv_mss(tp, seg);
	us_tcp_rcv_rtt_measure(fast, tp);
	if (!tp->ack_ato_us) {
		us_tcp_incr_quickack(tp);
		tp->ack_ato_us = US_ATO_MIN_US;
	} else if (gap_us <= US_ATO_MIN_US / 2) {
		tp->ack_ato_us = (tp->ack_ato_us >> 1) + US_ATO_MIN_US / 2;
	} else if (gap_us < tp->ack_ato_us) {
		tp->ack_ato_us = us_min32((tp->ack_ato_us >> 1) + (uint32_t)gap_us, tp->rto_us);
	} else if (gap_us > tp->rto_us) {
		us_tcp_incr_quickack(tp);
	}
	tp->ack_lrcvtime_us = fast->now_us;
	if (seg->len >= 128)
		us_tcp_grow_window(fast, tp, seg->len);
}

/* tcp_rcv_rtt_measure_ts */
static void us_tcp_rcv_rtt_measure_ts(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				      const struct us_tcp_seg *seg)
{
	uint32_t delta_ms;

	if (!tp->tstamp_ok || !seg->tsecr || seg->tsecr == tp->rcv_rtt_last_tsecr)
		return;
	tp->rcv_rtt_last_tsecr = seg->tsecr;
	if (seg->len < tp->ack_rcv_mss)
		return;
	delta_ms = (uint32_t)(fast->now_us / 1000) + tp->tsoffset - seg->tsecr;
	if (delta_ms < US_RTT_TS_MAX_MS)
		us_tcp_rcv_rtt_update(tp, (uint64_t)us_max32(delta_ms, 1) * 1000, false);
}

/*
 * Queue the buffer that the text lies in, if that wastes little, and give the device another
 * one: no byte of it is copied. The frame's headers make room for the queue's own.
 */
static bool us_tcp_queue_buffer(struct us_mem *mem, struct us_tcp_sock *tp,
				const struct us_tcp_seg *seg)
{
	struct us_igb_rx_buffer *buffer = seg->large;
	us_dma_addr_t other;

	if (!buffer || seg->nframes != 1 || seg->len < US_LARGE_BYTES / 2)
		return false;
	other = us_alloc_pages_wmark(mem, US_LARGE_ORDER, mem->min_free);
	if (other == US_NO_PAGE)
		return false;
	if (us_bq_append_block(mem, &tp->receive_queue, buffer->page,
			       (uint32_t)(seg->payload - (mem->base + buffer->page)), seg->len)) {
		us_put_page(mem, other);
		return false;
	}
	buffer->page = other;
	return true;
}

/* Take text at RCV.NXT; the caller has seen to it that there is room and memory. */
void us_tcp_data_queue(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
		       const struct us_tcp_seg *seg)
{
	us_tcp_rcv_rtt_measure_ts(fast, tp, seg);
	for (uint32_t i = us_tcp_queue_buffer(fast->mem, tp, seg); i < seg->nframes; i++)
		us_bq_append(fast->mem, &tp->receive_queue, seg->pieces[i].bytes, seg->pieces[i].len);
	tp->rcv_nxt += seg->len;
	tp->bytes_received += seg->len;
	us_tcp_event_data_recv(fast, tp, seg);
}

/* The peer has no more to say (tcp_fin); its FIN stands at RCV.NXT, and ours may carry the ACK. */
void us_tcp_fin(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	tp->rcv_nxt++;
	tp->ack_pending |= US_ACK_SCHED;
	tp->rcv_shutdown |= US_RCV_SHUTDOWN;
	tp->done = 1;
	tp->state = US_TCP_CLOSE_WAIT;
	tp->ack_pingpong = (uint8_t)fast->pingpong_thresh;
	us_tcp_wake_reader(fast, tp, US_TCP_EV_FIN);
}

/* tcp_ack_snd_check: whether the ACK that is owed goes out now. */
bool us_tcp_acks_now(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const uint32_t unacked = tp->rcv_nxt - tp->rcv_wup;

	if (tp->ack_pending & US_ACK_NOW)
		return true;
	if (unacked > tp->ack_rcv_mss && us_tcp_new_window(fast, tp) >= tp->rcv_wnd)
		return true;
	return tp->ack_quick && tp->ack_pingpong < fast->pingpong_thresh;
}
