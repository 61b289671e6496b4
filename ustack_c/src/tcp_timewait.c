/*
 * Connections of which only waiting is left, TIME_WAIT and an orphan's FIN_WAIT2, as mini-sockets
 * (net/ipv4/inet_timewait_sock.c): a hash by four-tuple and a timer wheel of their own. What a
 * segment for one means is ustack/tcp/timewait.py's, but for the FIN that is waited for.
 */

#include <stddef.h>
#include <stdlib.h>

#include "tcp_internal.h"

#define US_TW_KILL_US 4000000

/**
 * us_twsk_alloc - a mini-socket that segments find (inet_twsk_alloc)
 * @fast:  fast path
 * @saddr: our address
 * @sport: our port
 * @daddr: the peer's address
 * @dport: the peer's port
 *
 * Return: it, otherwise all zero and without a timer; NULL for lack of memory.
 */
struct us_timewait_sock *us_twsk_alloc(struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport,
				       uint32_t daddr, uint16_t dport)
{
	struct us_timewait_sock *tw = us_kmem_cache_zalloc(fast->tw_cache);

	if (!tw)
		return NULL;
	tw->saddr = saddr;
	tw->sport = sport;
	tw->daddr = daddr;
	tw->dport = dport;
	us_flow_table_insert(fast->timewaits, tw);
	return tw;
}

/**
 * us_twsk_lookup - find a mini-socket by its four-tuple
 * @fast:  fast path
 * @saddr: our address
 * @sport: our port
 * @daddr: the peer's address
 * @dport: the peer's port
 *
 * Return: it, or NULL.
 */
struct us_timewait_sock *us_twsk_lookup(const struct us_tcp_fast *fast, uint32_t saddr,
					uint16_t sport, uint32_t daddr, uint16_t dport)
{
	const struct us_flow flow = {saddr, daddr, sport, dport};

	return us_flow_table_lookup(fast->timewaits, &flow);
}

/**
 * us_twsk_count - how many mini-sockets there are
 * @fast: fast path
 */
uint32_t us_twsk_count(const struct us_tcp_fast *fast)
{
	return us_flow_table_count(fast->timewaits);
}

/**
 * us_twsk_list - all mini-sockets, in no order
 * @fast: fast path
 * @out:  filled
 * @max:  room
 *
 * Return: how many were filled in.
 */
uint32_t us_twsk_list(const struct us_tcp_fast *fast, struct us_timewait_sock **out, uint32_t max)
{
	struct us_timewait_sock *tw = NULL;
	uint32_t bucket = 0, n = 0;

	while (n < max && (tw = us_flow_table_next(fast->timewaits, &bucket, tw)))
		out[n++] = tw;
	return n;
}

/**
 * us_twsk_schedule - let a mini-socket live until then (inet_twsk_schedule)
 * @fast:       fast path
 * @tw:         mini-socket
 * @expires_us: stack time
 */
void us_twsk_schedule(struct us_tcp_fast *fast, struct us_timewait_sock *tw, uint64_t expires_us)
{
	us_mod_timer(fast->tw_timers, &tw->timer, expires_us);
}

/**
 * us_twsk_kill - forget a mini-socket (inet_twsk_kill)
 * @fast: fast path
 * @tw:   mini-socket, which is gone afterwards
 */
void us_twsk_kill(struct us_tcp_fast *fast, struct us_timewait_sock *tw)
{
	us_flow_table_remove(fast->timewaits, tw);
	us_del_timer(fast->tw_timers, &tw->timer);
	if (tw->bind_share)
		us_bind_share_put(fast, tw->bind_share);
	if (tw->dst)
		tw->dst->refs--;
	us_kmem_cache_free(fast->tw_cache, tw);
}

/**
 * us_twsk_expire - forget those whose time is over (tw_timer_handler)
 * @fast: fast path; its now_us is the present
 * @max:  how many at most
 *
 * Return: how many those were.
 */
uint32_t us_twsk_expire(struct us_tcp_fast *fast, uint32_t max)
{
	struct us_timer *timer;
	uint32_t n = 0;

	while (n < max && (timer = us_timer_expired(fast->tw_timers, fast->now_us))) {
		us_twsk_kill(fast, (struct us_timewait_sock *)(void *)
				   ((uint8_t *)timer - offsetof(struct us_timewait_sock, timer)));
		n++;
	}
	return n;
}

/* How long the peer's FIN may still be on its way, lost once and repeated (tcp_repeat_time_us). */
uint64_t us_tcp_repeat_time_us(const struct us_tcp_sock *tp)
{
	return ((uint64_t)tp->rto_us << 2) - (tp->rto_us >> 1);
}

/**
 * us_tcp_time_wait - what a mini-socket in place of @tp begins with (tcp_time_wait)
 * @fast:       fast path
 * @tp:         connection; its share of the port and its route become the mini-socket's
 * @substate:   TCP_FIN_WAIT2 or TCP_TIME_WAIT
 * @timeout_us: how long it lives at least
 *
 * Beyond tcp_max_tw_buckets, or without memory, there is none, which is counted.
 */
void us_tcp_time_wait(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t substate,
		      uint64_t timeout_us)
{
	struct us_timewait_sock *tw = NULL;

	if (us_twsk_count(fast) < fast->max_tw_buckets)
		tw = us_twsk_alloc(fast, tp->saddr, tp->sport, tp->daddr, tp->dport);
	if (!tw) {
		fast->mib.TCPTimeWaitOverflow++;
		return;
	}
	tw->rcv_nxt = tp->rcv_nxt;
	tw->snd_nxt = tp->snd_nxt;
	tw->rcv_wnd = us_tcp_receive_window(tp);
	tw->ts_recent = tp->ts_recent;
	tw->ts_recent_stamp_us = tp->ts_recent_stamp_us;
	tw->tsoffset = tp->tsoffset;
	tw->tstamp_ok = tp->tstamp_ok != 0;
	tw->rcv_wscale = tp->rcv_wscale;
	tw->tos = tp->tos;
	tw->substate = (uint8_t)substate;
	tw->entry_ms = (uint32_t)(fast->now_us / 1000);
	tw->bind_share = tp->bind_share;
	tp->bind_share = 0;
	tw->dst = tp->dst;
	tp->dst = NULL;
	if (timeout_us < us_tcp_repeat_time_us(tp))
		timeout_us = us_tcp_repeat_time_us(tp);
	if (timeout_us <= US_TW_KILL_US)
		fast->mib.TWKilled++;
	else
		fast->mib.TW++;
	us_twsk_schedule(fast, tw, fast->now_us + timeout_us);
}

/**
 * us_tcp_timewait_fin - take the FIN that an orphan waits for in FIN_WAIT2, and acknowledge it
 * @fast: fast path
 * @tw:   mini-socket
 * @seg:  segment; it has no connection
 *
 * Return: false, and nothing has changed: it is Python's (tcp_timewait_state_process).
 */
bool us_tcp_timewait_fin(struct us_tcp_fast *fast, struct us_timewait_sock *tw,
			 const struct us_tcp_seg *seg)
{
	struct us_tcp_xmit xmit = {.seq = tw->snd_nxt, .flags = US_TCP_ACK};
	struct us_tcp_sock tp = {0};

	if (tw->substate != US_TCP_FIN_WAIT2 || tw->has_key || !seg->fin || seg->len ||
	    seg->seq != tw->rcv_nxt || (tw->tstamp_ok && us_before(seg->tsval, tw->ts_recent)))
		return false;
	if (!tw->dst || !us_tcp_dst_can_transmit(fast, tw->dst) ||
	    us_igb_tx_room(tw->dst->queue->ring) < US_ACK_DESCRIPTORS)
		return false;
	tw->substate = US_TCP_TIME_WAIT;
	tw->entry_ms = (uint32_t)(fast->now_us / 1000);
	tw->rcv_nxt++;
	if (tw->tstamp_ok) {
		tw->ts_recent = seg->tsval;
		tw->ts_recent_stamp_us = fast->now_us;
	}
	us_twsk_schedule(fast, tw, fast->now_us + US_TIMEWAIT_LEN_US);
	tp.saddr = tw->saddr;
	tp.sport = tw->sport;
	tp.daddr = tw->daddr;
	tp.dport = tw->dport;
	tp.rcv_nxt = tw->rcv_nxt;
	tp.tstamp_ok = tw->tstamp_ok;
	tp.ts_recent = tw->ts_recent;
	tp.tsoffset = tw->tsoffset;
	tp.tos = tw->tos;
	tp.dst = tw->dst;
	xmit.window = us_min32(tw->rcv_wnd >> tw->rcv_wscale, UINT16_MAX);
	us_tcp_transmit(fast, &tp, &xmit);
	fast->mib.OutSegs++;
	return true;
}
