/*
 * The end of a connection that ends as most do: close() sends a FIN at once, and what is left is
 * an orphan, its control block alone, until that FIN is acknowledged (tcp_close and
 * tcp_rcv_state_process in ustack/tcp). Whatever else happens to an orphan is Python's, which
 * makes the object again.
 */

#include "tcp_internal.h"

#define US_SHUTDOWN_SEND 2
#define US_NAGLE_OFF 1

/* Send our FIN and go on as an orphan without an object; false: nothing has changed. */
static bool us_tcp_leave(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t sockopts)
{
	if (tp->receive_queue.len || tp->nospace || tp->snd_nxt != tp->write_seq ||
	    fast->orphans >= fast->max_orphans || !us_tcp_may_xmit(fast, tp) ||
	    us_tcp_send_fin(fast, tp))
		return false;
	tp->copied_seq = tp->rcv_nxt;
	tp->rcv_shutdown = US_RCV_SHUTDOWN;
	tp->snd_shutdown = US_SHUTDOWN_SEND;
	tp->nonagle |= US_NAGLE_OFF;
	tp->state = tp->state == US_TCP_ESTABLISHED ? US_TCP_FIN_WAIT1 : US_TCP_LAST_ACK;
	fast->mib.CurrEstab--;
	if (!tp->sockopts)
		tp->dst->refs++;
	tp->sockopts = (uint16_t)sockopts;
	tp->slow |= US_TCP_SLOW_PARKED;
	tp->told = 0;
	tp->dead = 1;
	fast->orphans++;
	return true;
}

/**
 * us_tcp_close - send our FIN and make a connection an orphan without an object (tcp_close)
 * @fast:     fast path
 * @tp:       connection, with a share of its port
 * @now_us:   the present
 * @genid:    of the routing table
 * @sockopts: what its options are, see ustack/tcp/park.py
 *
 * Return: 1; 0, and nothing has changed: the way through Python.
 */
int us_tcp_close(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint64_t now_us, uint32_t genid,
		 uint32_t sockopts)
{
	us_tcp_begin_call(fast, now_us, genid);
	return us_tcp_leave(fast, tp, sockopts);
}

/* us_tcp_close of a connection without an object, as part of another call. */
bool us_tcp_close_parked(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	return tp->sockopts && tp->ends_plainly && us_tcp_has_metrics(fast, tp) &&
	       us_tcp_leave(fast, tp, tp->sockopts);
}

/**
 * us_tcp_close_at - us_tcp_close for a connection without an object
 * @fast:   fast path
 * @handle: of the connection
 * @now_us: the present
 * @genid:  of the routing table
 *
 * Return: 1, with US_TCP_CALL_MORE if Python has something to do now; 0, and nothing has
 * changed: the way through Python.
 */
int64_t us_tcp_close_at(struct us_tcp_fast *fast, uint64_t handle, uint64_t now_us, uint32_t genid)
{
	struct us_tcp_sock *tp = us_tcp_sock_at(fast, handle);

	us_tcp_begin_call(fast, now_us, genid);
	if (!tp || !us_tcp_close_parked(fast, tp))
		return 0;
	return 1 | us_tcp_call_more(fast);
}

/* An orphan is over: nothing of it is left (tcp_done, inet_csk_destroy_sock). */
static void us_tcp_destroy(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_forget_timers(fast, tp);
	us_tcp_unhash(fast, tp);
	if (tp->bind_share)
		us_bind_share_put(fast, tp->bind_share);
	us_bq_purge(fast->mem, &tp->receive_queue);
	us_bq_purge(fast->mem, &tp->write_queue);
	us_tcp_tx_purge(fast->mem, tp);
	us_kmem_cache_free(fast->bictcp_cache, tp->bictcp);
	if (tp->dst)
		tp->dst->refs--;
	fast->orphans--;
	tp->place = 0;
	tp->generation = 0;
	us_kmem_cache_free(fast->tcp_cache, tp);
}

/* Only waiting is left: a mini-socket does it (tcp_time_wait). */
static void us_tcp_become_timewait(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				   uint32_t substate, uint64_t timeout_us)
{
	us_tcp_update_metrics(fast, tp);
	us_tcp_time_wait(fast, tp, substate, timeout_us);
	us_tcp_destroy(fast, tp);
}

/* The ACK of our FIN, the peer's with it or still to come; the segment counts as taken. */
static void us_tcp_fin_is_acked(struct us_tcp_fast *fast, struct us_tcp_sock *tp, bool fin)
{
	if (tp->state == US_TCP_LAST_ACK) {
		us_tcp_update_metrics(fast, tp);
		us_tcp_destroy(fast, tp);
	} else if (fin) {
		tp->rcv_nxt++;
		us_tcp_send_ack(fast, tp);
		us_tcp_become_timewait(fast, tp, US_TCP_TIME_WAIT, US_TIMEWAIT_LEN_US);
	} else {
		us_tcp_become_timewait(fast, tp, US_TCP_FIN_WAIT2, fast->fin_timeout_us);
	}
}

/* Whether C can do what the ACK of our FIN brings about. */
static bool us_tcp_can_end(const struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	const struct us_tcp_sock *tp = seg->tp;

	if (!us_tcp_has_metrics(fast, tp))
		return false;
	if (tp->state == US_TCP_LAST_ACK)
		return !seg->fin;
	if (seg->fin)
		return us_tcp_can_transmit(fast, tp) &&
		       us_igb_tx_room(tp->dst->queue->ring) >= US_ACK_DESCRIPTORS;
	return fast->fin_timeout_us <= US_TIMEWAIT_LEN_US &&
	       us_tcp_repeat_time_us(tp) <= US_TIMEWAIT_LEN_US;
}

/**
 * us_tcp_orphan_rcv - let an orphan without an object have an ACK of what it has sent
 * @fast: fast path
 * @seg:  segment
 *
 * Return: false, and nothing has changed: it is Python's.
 */
bool us_tcp_orphan_rcv(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;
	const bool acks_fin = seg->ack == tp->write_seq;

	if (tp->slow != US_TCP_SLOW_PARKED || !tp->dead || tp->ecn_flags ||
	    tp->punt_batch == (uint16_t)fast->batch)
		return false;
	if (tp->state != US_TCP_LAST_ACK && tp->state != US_TCP_FIN_WAIT1)
		return false;
	if (seg->len || seg->seq != tp->rcv_nxt || seg->ack == tp->snd_una ||
	    (tp->tstamp_ok && us_before(seg->tsval, tp->ts_recent)) || !us_tcp_ack_is_plain(seg))
		return false;
	if (acks_fin ? !us_tcp_can_end(fast, seg) : seg->fin)
		return false;
	us_tcp_count_segment(fast, seg);
	us_tcp_replace_ts_recent(fast, seg);
	if (us_tcp_ack(fast, seg)) {
		if (acks_fin)
			us_tcp_fin_is_acked(fast, tp, seg->fin);
	} else if (seg->fin) {	/* congestion control is to look first, and Python goes on */
		us_tcp_event(fast, tp, US_TCP_EV_FIN);
		tp->punt_batch = (uint16_t)fast->batch;
	}
	return true;
}
