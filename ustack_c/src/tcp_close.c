/*
 * The end of a connection that ends as most do: close() sends a FIN at once, and what is left is
 * an orphan, its control block alone, until that FIN is acknowledged (tcp_close and
 * tcp_rcv_state_process in ustack/tcp). Whatever else happens to an orphan is Python's, which
 * makes the object again.
 */

#include "tcp_internal.h"

#define US_SHUTDOWN_SEND 2
#define US_NAGLE_OFF 1

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
	if (tp->receive_queue.len || tp->nospace || tp->snd_nxt != tp->write_seq ||
	    fast->orphans >= fast->max_orphans || !us_tcp_may_xmit(fast, tp) ||
	    us_tcp_send_fin(fast, tp))
		return 0;
	tp->copied_seq = tp->rcv_nxt;
	tp->rcv_shutdown = US_RCV_SHUTDOWN;
	tp->snd_shutdown = US_SHUTDOWN_SEND;
	tp->nonagle |= US_NAGLE_OFF;
	tp->state = tp->state == US_TCP_ESTABLISHED ? US_TCP_FIN_WAIT1 : US_TCP_LAST_ACK;
	fast->mib.CurrEstab--;
	tp->sockopts = (uint16_t)sockopts;
	tp->slow |= US_TCP_SLOW_PARKED;
	tp->dead = 1;
	tp->dst->refs++;
	fast->orphans++;
	return 1;
}

/* An orphan is over: nothing of it is left (tcp_done, inet_csk_destroy_sock). */
static void us_tcp_destroy(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_forget_timers(fast, tp);
	us_tcp_unhash(fast, tp);
	us_bind_share_put(fast, tp->bind_share);
	us_bq_purge(fast->mem, &tp->receive_queue);
	us_bq_purge(fast->mem, &tp->write_queue);
	us_tcp_tx_purge(fast->mem, tp);
	us_kmem_cache_free(fast->bictcp_cache, tp->bictcp);
	tp->dst->refs--;
	fast->orphans--;
	tp->place = 0;
	tp->generation = 0;
	us_kmem_cache_free(fast->tcp_cache, tp);
}

/* Whether the segment is an ACK of all we have sent, our FIN among it, and nothing else. */
static bool us_tcp_acks_fin(const struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	const struct us_tcp_sock *tp = seg->tp;

	return !seg->len && !seg->fin && seg->seq == tp->rcv_nxt && seg->ack == tp->write_seq &&
	       tp->snd_nxt == tp->write_seq && !(tp->tstamp_ok && us_before(seg->tsval, tp->ts_recent)) &&
	       us_tcp_ack_is_plain(seg) && us_tcp_has_metrics(fast, tp);
}

/**
 * us_tcp_orphan_rcv - let an orphan without an object have the segment that ends it
 * @fast: fast path
 * @seg:  segment
 *
 * Return: false, and nothing has changed: it is Python's.
 */
bool us_tcp_orphan_rcv(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;

	if (tp->slow != US_TCP_SLOW_PARKED || !tp->dead || tp->ecn_flags ||
	    tp->punt_batch == (uint16_t)fast->batch)
		return false;
	if (tp->state != US_TCP_LAST_ACK || !us_tcp_acks_fin(fast, seg))
		return false;
	us_tcp_count_segment(fast, seg);
	if (!us_tcp_ack(fast, seg))
		return true;	/* congestion control is to look first, and Python goes on */
	us_tcp_update_metrics(fast, tp);
	us_tcp_destroy(fast, tp);
	return true;
}
