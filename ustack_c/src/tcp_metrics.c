/* What a connection that ends in order has learnt about its peer (net/ipv4/tcp_metrics.c). */

#include <stddef.h>

#include "tcp_internal.h"

#define US_INFINITE_SSTHRESH 0x7fffffffU
#define US_METRICS_TIMEOUT_US 3600000000ULL

/* Whether us_tcp_update_metrics knows where to write: Python makes the blocks. */
bool us_tcp_has_metrics(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	const struct us_tcp_metrics *block = tp->dst ? tp->dst->metrics : NULL;

	return fast->no_metrics_save ||
	       (block && !block->forgotten && block->saddr == tp->saddr && block->daddr == tp->daddr);
}

/* A longer RTT is believed at once, a shorter one by an eighth. */
static void us_tcp_metrics_rtt(struct us_tcp_metrics *block, const struct us_tcp_sock *tp)
{
	const int64_t shorter_by = (int64_t)block->rtt - tp->srtt_us;
	uint32_t deviation = (uint32_t)((shorter_by < 0 ? -shorter_by : shorter_by) >> 1);

	if (shorter_by <= 0)
		block->rtt = tp->srtt_us;
	else
		block->rtt -= (uint32_t)(shorter_by >> 3);
	deviation = us_max32(deviation, tp->mdev_us);
	if (deviation >= block->rttvar)
		block->rttvar = deviation;
	else
		block->rttvar -= (block->rttvar - deviation) >> 2;
}

/* cwnd and ssthresh, as far as they mean something. */
static void us_tcp_metrics_window(struct us_tcp_metrics *block, const struct us_tcp_sock *tp,
				  bool save_ssthresh)
{
	const uint32_t ssthresh = tp->snd_ssthresh;
	const uint32_t half = tp->snd_cwnd >> 1;

	if (ssthresh >= US_INFINITE_SSTHRESH) {
		if (save_ssthresh && block->ssthresh && half > block->ssthresh)
			block->ssthresh = half;
		block->cwnd = us_max32(block->cwnd, tp->snd_cwnd);
	} else if (tp->snd_cwnd >= ssthresh && tp->ca_state == US_TCP_CA_OPEN) {
		if (save_ssthresh)
			block->ssthresh = us_max32(half, ssthresh);
		block->cwnd = (uint32_t)(((uint64_t)block->cwnd + tp->snd_cwnd) >> 1);
	} else {
		block->cwnd = (uint32_t)(((uint64_t)block->cwnd + ssthresh) >> 1);
		if (save_ssthresh && block->ssthresh && ssthresh > block->ssthresh)
			block->ssthresh = ssthresh;
	}
}

/* tcp_update_metrics, of a connection without reordering; us_tcp_has_metrics is true. */
void us_tcp_update_metrics(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	struct us_tcp_metrics *block;

	if (fast->no_metrics_save)
		return;
	block = tp->dst->metrics;
	if (fast->now_us - block->stamp_us > US_METRICS_TIMEOUT_US) {
		block->rtt = block->rttvar = block->ssthresh = 0;
		block->cwnd = block->reordering = 0;
		block->stamp_us = fast->now_us;
	}
	if (tp->backoff || !tp->srtt_us) {
		block->rtt = 0;
		return;
	}
	us_tcp_metrics_rtt(block, tp);
	us_tcp_metrics_window(block, tp, !fast->no_ssthresh_metrics_save);
	block->stamp_us = fast->now_us;
}
