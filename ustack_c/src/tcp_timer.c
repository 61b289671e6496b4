/*
 * A connection's timers. Two of them have a time in the control block, and one entry in the
 * wheel stands for both: it comes up with the earlier one, or before, since a time that moves
 * on is only noted and an entry that comes up too early is put back (mod_timer's cost on
 * every ACK is two stores). What expires is Python's, but for the delayed ACK of a
 * connection that has nothing unusual about it.
 */

#include <stddef.h>

#include "tcp_internal.h"

#define US_DELACK_MAX_US 200000
#define US_DELACK_MIN_US 40000
#define US_DELACK_SLOW_US 500000
#define US_TIMERS_SETTLED 16

static struct us_tcp_sock *us_tcp_of_timer(struct us_timer *timer)
{
	return (struct us_tcp_sock *)(void *)((uint8_t *)timer - offsetof(struct us_tcp_sock, timer));
}

/* The earlier of both times, 0 if neither is set. */
static uint64_t us_tcp_due_us(const struct us_tcp_sock *tp)
{
	const uint64_t ack_us = tp->icsk_ack_timeout_us;

	if (!tp->icsk_timeout_us || (ack_us && ack_us < tp->icsk_timeout_us))
		return ack_us;
	return tp->icsk_timeout_us;
}

static void us_tcp_arm(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint64_t expires_us)
{
	if (!tp->timer.pprev || expires_us < tp->timer.expires_us)
		us_mod_timer(fast->wheel, &tp->timer, expires_us);
}

/**
 * us_tcp_reset_xmit_timer - set the retransmission or probe timer (inet_csk_reset_xmit_timer)
 * @fast:       fast path
 * @tp:         connection
 * @what:       ICSK_TIME_*
 * @expires_us: when it is due, not 0
 */
void us_tcp_reset_xmit_timer(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what,
			     uint64_t expires_us)
{
	tp->icsk_pending = (uint8_t)what;
	tp->icsk_timeout_us = expires_us;
	us_tcp_arm(fast, tp, expires_us);
}

/**
 * us_tcp_clear_xmit_timer - stop the retransmission or probe timer
 * @tp: connection
 */
void us_tcp_clear_xmit_timer(struct us_tcp_sock *tp)
{
	tp->icsk_pending = US_ICSK_TIME_NONE;
	tp->icsk_timeout_us = 0;
}

/**
 * us_tcp_reset_delack - set the delayed ACK's timer
 * @fast:       fast path
 * @tp:         connection
 * @expires_us: when it is due, not 0
 */
void us_tcp_reset_delack(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint64_t expires_us)
{
	tp->icsk_ack_timeout_us = expires_us;
	us_tcp_arm(fast, tp, expires_us);
}

/**
 * us_tcp_forget_timers - stop both timers; the control block may be freed
 * @fast: fast path
 * @tp:   connection
 */
void us_tcp_forget_timers(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_clear_xmit_timer(tp);
	tp->icsk_ack_timeout_us = 0;
	us_del_timer(fast->wheel, &tp->timer);
}

/* When a wheel's first timer is due, as far as that is known. */
static uint64_t us_timer_due_us(struct us_timer_wheel *wheel)
{
	const struct us_timer *timer = us_timer_first(wheel);

	return timer ? timer->expires_us : us_timer_next_us(wheel);
}

/**
 * us_tcp_next_timer_us - when the timer of a connection, a SYN-ACK or a mini-socket is due
 * @fast: fast path
 *
 * Return: stack time, perhaps too early if very many are armed; US_TIMER_NEVER: none is armed.
 */
uint64_t us_tcp_next_timer_us(struct us_tcp_fast *fast)
{
	uint64_t due_us = us_timer_due_us(fast->reqsk_timers);
	uint64_t first_us = us_timer_due_us(fast->tw_timers);

	if (due_us < first_us)
		first_us = due_us;
	for (int i = 0; i < US_TIMERS_SETTLED; i++) {
		struct us_timer *timer = us_timer_first(fast->wheel);

		if (!timer)
			break;
		due_us = us_tcp_due_us(us_tcp_of_timer(timer));
		if (due_us == timer->expires_us)
			break;
		if (due_us)
			us_mod_timer(fast->wheel, timer, due_us);
		else
			us_del_timer(fast->wheel, timer);
	}
	due_us = us_timer_next_us(fast->wheel);
	return due_us < first_us ? due_us : first_us;
}

/**
 * us_tcp_timers_due - whether there may be something to run
 * @fast:   fast path
 * @now_us: the present, which it is told
 *
 * Return: 0: no timer of a connection, a request or a TIME_WAIT is due, and no doorbell waits.
 */
int us_tcp_timers_due(struct us_tcp_fast *fast, uint64_t now_us)
{
	fast->now_us = now_us;
	return us_timer_next_us(fast->wheel) <= now_us ||
	       us_timer_next_us(fast->reqsk_timers) <= now_us ||
	       us_timer_next_us(fast->tw_timers) <= now_us || fast->doorbell ||
	       fast->emptied_shares;
}

/* tcp_send_delayed_ack: owe an ACK for a while; false: it has been owed for long enough. */
static bool us_tcp_delay_ack(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	uint32_t ato_us = tp->ack_ato_us;
	uint64_t timeout_us;

	if (ato_us > US_DELACK_MIN_US) {
		uint32_t max_us = US_DELACK_SLOW_US;

		if (tp->ack_pingpong >= fast->pingpong_thresh || tp->ack_pending & US_ACK_PUSHED)
			max_us = US_DELACK_MAX_US;
		if (tp->srtt_us)
			max_us = us_min32(max_us, us_max32(tp->srtt_us >> 3, US_DELACK_MIN_US));
		ato_us = us_min32(ato_us, max_us);
	}
	ato_us = us_min32(ato_us, US_DELACK_MAX_US);
	timeout_us = fast->now_us + ato_us;
	if (tp->ack_pending & US_ACK_TIMER && tp->icsk_ack_timeout_us) {
		if (tp->icsk_ack_timeout_us <= fast->now_us + (ato_us >> 2))
			return false;
		if (tp->icsk_ack_timeout_us < timeout_us)
			timeout_us = tp->icsk_ack_timeout_us;
	}
	tp->ack_pending |= US_ACK_SCHED | US_ACK_TIMER;
	us_tcp_reset_delack(fast, tp, timeout_us);
	return true;
}

/* Send the ACK that is owed, or have it sent later; Python does what C cannot. */
void us_tcp_ack_snd_check(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (!(tp->ack_pending & US_ACK_SCHED))
		return;
	if (!us_tcp_acks_now(fast, tp) && us_tcp_delay_ack(fast, tp))
		return;
	if (us_tcp_send_ack(fast, tp))
		us_tcp_event(fast, tp, US_TCP_EV_ACK);
}

/* tcp_delack_timer_handler; false, and nothing changed: it is Python's. */
static bool us_tcp_delack_timer(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const bool pingpong = tp->ack_pingpong >= fast->pingpong_thresh;
	const uint32_t ato_us = tp->ack_ato_us;

	if (!(tp->ack_pending & US_ACK_TIMER) || !(tp->ack_pending & US_ACK_SCHED))
		return false;
	if (!fast->on || !us_tcp_can_send(tp) || tp->slow || tp->ecn_flags ||
	    tp->ack_pending & US_ACK_NOMEM)
		return false;
	tp->ack_ato_us = pingpong ? US_ATO_MIN_US : us_min32(ato_us << 1, tp->rto_us);
	tp->ack_pending &= (uint8_t)~US_ACK_TIMER;
	if (us_tcp_send_ack(fast, tp)) {
		tp->ack_ato_us = ato_us;
		tp->ack_pending |= US_ACK_TIMER;
		return false;
	}
	if (pingpong)
		tp->ack_pingpong = 0;
	fast->mib.DelayedACKs++;
	return true;
}

/**
 * us_tcp_timer_expired - run what is due, up to the next that is Python's
 * @fast:  fast path; its now_us is the present
 * @event: filled: whose timer, and US_TCP_EV_WRITE_TIMER or US_TCP_EV_DELACK_TIMER
 *
 * Return: 1, 0: nothing is due any more.
 */
int us_tcp_timer_expired(struct us_tcp_fast *fast, struct us_tcp_event *event)
{
	const uint64_t now_us = fast->now_us;
	struct us_timer *timer;

	while ((timer = us_timer_expired(fast->wheel, now_us))) {
		struct us_tcp_sock *tp = us_tcp_of_timer(timer);

		event->what = 0;
		event->handle = us_tcp_handle(tp);
		if (tp->icsk_ack_timeout_us && tp->icsk_ack_timeout_us <= now_us) {
			tp->icsk_ack_timeout_us = 0;
			if (!us_tcp_delack_timer(fast, tp))
				event->what |= US_TCP_EV_DELACK_TIMER;
		}
		if (tp->icsk_timeout_us && tp->icsk_timeout_us <= now_us) {
			tp->icsk_timeout_us = 0;
			event->what |= US_TCP_EV_WRITE_TIMER;
		}
		if (us_tcp_due_us(tp))
			us_tcp_arm(fast, tp, us_tcp_due_us(tp));
		if (event->what)
			return 1;
	}
	return 0;
}
