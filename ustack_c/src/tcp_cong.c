/*
 * What an ACK in order does to the congestion window and to the timers (tcp_acked_in_order in
 * ustack/tcp/ack.py): Reno's whole arithmetic, and CUBIC's as long as the count that Python has
 * set holds. When Python has to look at the curve, or to end slow start, the ACK is its own.
 */

#include "tcp_internal.h"

#define US_SND_CWND_CLAMP 0xffffffU
#define US_JIFFY_US 1000
#define US_CNT_HOLDS_JIFFIES 31
#define US_DELAY_SETTLES_US 1000000
#define US_HYSTART_LOW_WINDOW 16
#define US_HYSTART_ACK_DELTA_US 2000
#define US_HYSTART_MIN_SAMPLES 8
#define US_HYSTART_DELAY_MIN_US 4000U
#define US_HYSTART_DELAY_MAX_US 16000U
#define US_HYSTART_ACK_DELAY_MAX_US 1000
#define US_TIMEOUT_INIT_US 1000000
#define US_TIMEOUT_MIN_US 2000

/* tcp_is_cwnd_limited */
bool us_tcp_is_cwnd_limited(const struct us_tcp_sock *tp)
{
	if (tp->is_cwnd_limited)
		return true;
	return tp->snd_cwnd < tp->snd_ssthresh && tp->snd_cwnd < 2 * tp->max_in_flight;
}

/* hystart_ack_delay_us */
static uint32_t us_hystart_ack_delay_us(const struct us_tcp_sock *tp)
{
	uint64_t delay_us;

	if (!tp->sk_pacing_rate || !tp->dst)
		return 0;
	delay_us = tp->dst->gso_max_size * 4ULL * 1000000 / tp->sk_pacing_rate;
	return delay_us < US_HYSTART_ACK_DELAY_MAX_US ? (uint32_t)delay_us
						       : US_HYSTART_ACK_DELAY_MAX_US;
}

/* hystart_update on a copy of the state; false: slow start ends here, which is Python's. */
static bool us_hystart_update(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
			      struct us_bictcp *ca, uint32_t delay_us)
{
	const uint32_t least = ca->delay_min_us;
	uint32_t rise_us = us_max32(least >> 3, US_HYSTART_DELAY_MIN_US);

	if (us_after(tp->snd_una, ca->end_seq)) {
		ca->round_start_us = fast->now_us;
		ca->last_ack_us = fast->now_us;
		ca->end_seq = tp->snd_nxt;
		ca->curr_rtt_us = UINT32_MAX;
		ca->sample_cnt = 0;
	}
	if (tp->snd_cwnd < US_HYSTART_LOW_WINDOW)
		return true;
	if (fast->now_us - ca->last_ack_us <= US_HYSTART_ACK_DELTA_US) {
		ca->last_ack_us = fast->now_us;
		if (fast->now_us - ca->round_start_us > (least + us_hystart_ack_delay_us(tp)) >> 1)
			return false;
	}
	ca->curr_rtt_us = us_min32(ca->curr_rtt_us, delay_us);
	if (ca->sample_cnt < US_HYSTART_MIN_SAMPLES) {
		ca->sample_cnt++;
		return true;
	}
	rise_us = us_min32(rise_us, US_HYSTART_DELAY_MAX_US);
	return ca->curr_rtt_us <= least + rise_us;
}

/* Cubic.pkts_acked on a copy of the state. */
static bool us_bictcp_acked(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
			    struct us_bictcp *ca, int64_t rtt_us)
{
	const uint32_t delay_us = us_max32((uint32_t)rtt_us, 1);

	if (rtt_us < 0)
		return true;
	if (ca->epoch_start_us && fast->now_us - ca->epoch_start_us < US_DELAY_SETTLES_US)
		return true;
	if (!ca->delay_min_us || ca->delay_min_us > delay_us)
		ca->delay_min_us = delay_us;
	if (ca->found || tp->snd_cwnd >= tp->snd_ssthresh)
		return true;
	return us_hystart_update(fast, tp, ca, delay_us);
}

/* tcp_cong_avoid_ai */
static void us_tcp_cong_avoid_ai(struct us_tcp_sock *tp, uint32_t window, uint32_t acked)
{
	uint32_t count = tp->snd_cwnd_cnt;

	if (count >= window) {
		count = 0;
		tp->snd_cwnd++;
	}
	count += acked;
	if (count >= window) {
		tp->snd_cwnd += count / window;
		count %= window;
	}
	tp->snd_cwnd_cnt = count;
	tp->snd_cwnd = us_min32(tp->snd_cwnd, US_SND_CWND_CLAMP);
}

/* Whether CUBIC's count holds for @cwnd: bictcp_update would not look at the curve. */
static bool us_bictcp_count_holds(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				  const struct us_bictcp *ca, uint32_t cwnd)
{
	return tp->ca_cnt && ca->last_cwnd == cwnd &&
	       fast->now_us / US_JIFFY_US - ca->last_jiffy <= US_CNT_HOLDS_JIFFIES;
}

/* What CUBIC begins with (bictcp in ustack/tcp/cong/cubic.py); NULL: no memory. */
static struct us_bictcp *us_bictcp_create(struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	struct us_bictcp *ca = us_kmem_cache_zalloc(fast->bictcp_cache);

	if (ca) {
		ca->round_start_us = fast->now_us;
		ca->last_ack_us = fast->now_us;
		ca->end_seq = tp->snd_nxt;
		ca->curr_rtt_us = UINT32_MAX;
	}
	return ca;
}

/* Let @pkts segments grow cwnd; false, and nothing changed: the congestion control is to. */
static bool us_tcp_cong_avoid(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t pkts,
			      int64_t rtt_us)
{
	const bool is_cubic = tp->ca_kind == US_TCP_CA_CUBIC;
	struct us_bictcp ca = {0};
	uint32_t cwnd = tp->snd_cwnd;

	if (is_cubic) {
		if (!tp->bictcp && rtt_us >= 0)
			tp->bictcp = us_bictcp_create(fast, tp);
		if (!tp->bictcp)
			return false;
		ca = *tp->bictcp;
		if (!us_bictcp_acked(fast, tp, &ca, rtt_us))
			return false;
	}
	if (us_tcp_is_cwnd_limited(tp)) {
		if (cwnd < tp->snd_ssthresh) {
			cwnd = us_min32(cwnd + pkts, tp->snd_ssthresh);
			pkts -= cwnd - tp->snd_cwnd;
		}
		if (pkts && is_cubic && !us_bictcp_count_holds(fast, tp, &ca, cwnd))
			return false;
		tp->snd_cwnd = us_min32(cwnd, US_SND_CWND_CLAMP);
		if (pkts) {
			if (!is_cubic)
				tp->ca_cnt = tp->snd_cwnd;
			ca.ack_cnt += pkts;
			us_tcp_cong_avoid_ai(tp, tp->ca_cnt, pkts);
		}
	}
	if (is_cubic)
		*tp->bictcp = ca;
	tp->snd_cwnd_stamp_us = fast->now_us;
	return true;
}

/* tcp_ca_event(CA_EVENT_TX_START): idle time does not count on CUBIC's curve. */
void us_tcp_ca_tx_start(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	struct us_bictcp *ca = tp->bictcp;

	if (tp->ca_kind != US_TCP_CA_CUBIC || !ca || !ca->epoch_start_us || fast->now_us <= tp->lsndtime_us)
		return;
	ca->epoch_start_us += fast->now_us - tp->lsndtime_us;
	if (ca->epoch_start_us > fast->now_us)
		ca->epoch_start_us = fast->now_us;
}

/* tcp_update_pacing_rate */
void us_tcp_update_pacing_rate(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const bool slow_start = tp->snd_cwnd < tp->snd_ssthresh >> 1;
	const uint32_t ratio = slow_start ? fast->pacing_ss_ratio : fast->pacing_ca_ratio;
	const uint32_t segs = us_max32(tp->snd_cwnd, (tp->snd_nxt - tp->snd_una) / tp->mss_cache);
	unsigned __int128 rate = (uint64_t)tp->mss_cache * ratio;

	rate = rate * segs * (8000000 / 100);
	if (tp->srtt_us)
		rate /= tp->srtt_us;
	tp->sk_pacing_rate = rate < UINT64_MAX ? (uint64_t)rate : UINT64_MAX;
}

/* tcp_rto_delta_us */
static int64_t us_tcp_rto_delta_us(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	return (int64_t)(tp->txlog.first_us + tp->rto_us - fast->now_us);
}

static void us_tcp_arm_retransmit(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what,
				  uint64_t delay_us)
{
	if (delay_us > tp->icsk_rto_max_us)
		delay_us = tp->icsk_rto_max_us;
	us_tcp_reset_xmit_timer(fast, tp, what, fast->now_us + (delay_us ? delay_us : 1));
}

/* The first segment is out: its timeout. */
void us_tcp_arm_rto(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_arm_retransmit(fast, tp, US_ICSK_TIME_RETRANS, tp->rto_us);
}

/* tcp_check_probe_timer */
void us_tcp_check_probe_timer(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (tp->icsk_pending == US_ICSK_TIME_NONE && tp->snd_nxt == tp->snd_una)
		us_tcp_arm_retransmit(fast, tp, US_ICSK_TIME_PROBE0,
				      us_max32(tp->rto_us, US_RTO_MIN_US));
}

/* tcp_schedule_loss_probe */
bool us_tcp_schedule_loss_probe(struct us_tcp_fast *fast, struct us_tcp_sock *tp, bool advancing_rto)
{
	int64_t timeout_us = US_TIMEOUT_INIT_US;
	int64_t rto_us;

	if (!tp->sack_ok || !tp->packets_out || !fast->early_retrans)
		return false;
	if (tp->srtt_us)
		timeout_us = (tp->srtt_us >> 2) +
			     (tp->packets_out == 1 ? tp->icsk_rto_min_us : US_TIMEOUT_MIN_US);
	rto_us = advancing_rto ? tp->rto_us : us_tcp_rto_delta_us(fast, tp);
	if (rto_us > 0 && rto_us < timeout_us)
		timeout_us = rto_us;
	us_tcp_arm_retransmit(fast, tp, US_ICSK_TIME_LOSS_PROBE, (uint64_t)timeout_us);
	return true;
}

/* tcp_rearm_rto */
void us_tcp_rearm_rto(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	int64_t rto_us = tp->rto_us;

	if (!tp->packets_out) {
		us_tcp_clear_xmit_timer(tp);
		return;
	}
	if (tp->icsk_pending == US_ICSK_TIME_LOSS_PROBE ||
	    tp->icsk_pending == US_ICSK_TIME_REO_TIMEOUT)
		rto_us = us_tcp_rto_delta_us(fast, tp);
	us_tcp_arm_retransmit(fast, tp, US_ICSK_TIME_RETRANS, rto_us > 0 ? (uint64_t)rto_us : 1);
}

/*
 * Set timers and cwnd after @pkts segments were acknowledged with nothing in doubt
 * (tcp_acked_in_order); false, and nothing changed: the congestion control has to look.
 */
bool us_tcp_acked_in_order(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t pkts,
			   int64_t rtt_us)
{
	if (!tp->ca_kind || !fast->may_xmit || !us_tcp_cong_avoid(fast, tp, pkts, rtt_us))
		return false;
	if (!us_tcp_schedule_loss_probe(fast, tp, true))
		us_tcp_rearm_rto(fast, tp);
	if (tp->dst && tp->dst->hh)
		tp->dst->hh->confirmed_us = fast->now_us;
	us_tcp_update_pacing_rate(fast, tp);
	return true;
}
