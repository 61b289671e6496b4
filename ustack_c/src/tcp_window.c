/* The receive window in C, as ustack/tcp/window.py has it: see there for the rules. */

#include "tcp_internal.h"

#define US_RMEM_TO_WIN_SCALE 8
#define US_SOCK_MIN_RCVBUF 2304
#define US_FRAME_OVERHEAD 132
#define US_SKB_OVERHEAD 576
#define US_MAX_SAMPLE_US (1U << 28)

static int64_t us_tcp_win_from_space(const struct us_tcp_sock *tp, int64_t space)
{
	return space * tp->scaling_ratio >> US_RMEM_TO_WIN_SCALE;
}

/* tcp_space_from_win */
uint64_t us_tcp_space_from_win(const struct us_tcp_sock *tp, uint64_t window)
{
	return (window << US_RMEM_TO_WIN_SCALE) / us_max32(tp->scaling_ratio, 1);
}

/* What of the receive buffer may be offered as window. */
uint32_t us_tcp_win_of_buffer(const struct us_tcp_sock *tp)
{
	return (uint32_t)us_tcp_win_from_space(tp, tp->sk_rcvbuf);
}

static uint32_t us_skb_truesize(uint32_t len)
{
	return ((len + US_FRAME_OVERHEAD + 63) & ~63U) + US_SKB_OVERHEAD;
}

static int64_t us_tcp_space(const struct us_tcp_sock *tp)
{
	return us_tcp_win_from_space(tp, tp->sk_rcvbuf) - tp->receive_queue.len;
}

uint32_t us_tcp_receive_window(const struct us_tcp_sock *tp)
{
	const int32_t left = (int32_t)(tp->rcv_wup + tp->rcv_wnd - tp->rcv_nxt);

	return left > 0 ? (uint32_t)left : 0;
}

static void us_tcp_set_window_clamp(struct us_tcp_sock *tp, int64_t value)
{
	const uint32_t old = tp->window_clamp;
	const uint32_t clamp = us_max32((uint32_t)value, US_SOCK_MIN_RCVBUF / 2);

	tp->window_clamp = clamp;
	if (clamp < old)
		tp->rcv_ssthresh = us_min32(tp->rcv_ssthresh, clamp);
	else
		tp->rcv_ssthresh = us_max32(us_min32(tp->rcv_wnd, clamp), tp->rcv_ssthresh);
}

/* tcp_update_scaling_ratio */
void us_tcp_update_scaling_ratio(struct us_tcp_sock *tp, uint32_t len)
{
	const uint64_t ratio = ((uint64_t)len << US_RMEM_TO_WIN_SCALE) / us_skb_truesize(len);

	if (us_max32((uint32_t)ratio, 1) == tp->scaling_ratio)
		return;
	tp->scaling_ratio = (uint8_t)us_min32(us_max32((uint32_t)ratio, 1), 255);
	us_tcp_set_window_clamp(tp, us_tcp_win_from_space(tp, tp->sk_rcvbuf));
	tp->rcvq_space = us_min32(tp->rcvq_space, tp->window_clamp);
}

static int64_t us_tcp_unscaled_window(const struct us_tcp_sock *tp, int64_t free_space,
				      int64_t full_space, int64_t mss)
{
	const int64_t window = tp->rcv_wnd;

	if (window <= free_space - mss || window > free_space)
		return free_space - free_space % mss;
	if (mss == full_space && free_space > window + (full_space >> 1))
		return free_space;
	return window;
}

/* tcp_new_window: what the buffer's state calls for (__tcp_select_window). */
uint32_t us_tcp_new_window(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const int64_t allowed_space = us_tcp_win_from_space(tp, tp->sk_rcvbuf);
	const int64_t full_space = allowed_space < tp->window_clamp ? allowed_space
								     : tp->window_clamp;
	const int64_t mss = tp->ack_rcv_mss < full_space ? tp->ack_rcv_mss : full_space;
	const uint32_t scale = tp->rcv_wscale;
	int64_t free_space = us_tcp_space(tp);

	if (mss <= 0)
		return 0;
	if (free_space < full_space >> 1) {
		free_space = (free_space > 0 ? free_space : 0) >> scale << scale;
		tp->ack_quick = 0;
		if (fast->memory_pressure)
			tp->rcv_ssthresh = us_min32(tp->rcv_ssthresh, 4U * tp->advmss);
		if (free_space < allowed_space >> 4 || free_space < mss)
			return 0;
	}
	if (free_space > tp->rcv_ssthresh)
		free_space = tp->rcv_ssthresh;
	if (scale)
		return (uint32_t)(((free_space + (1 << scale) - 1) >> scale) << scale);
	return (uint32_t)us_tcp_unscaled_window(tp, free_space, full_space, mss);
}

/* tcp_select_window: choose, note and return the field of the header. */
uint32_t us_tcp_select_window(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const uint32_t old = tp->rcv_wnd;
	const uint32_t current = us_tcp_receive_window(tp);
	const uint32_t scale = tp->rcv_wscale;
	uint32_t window = us_tcp_new_window(fast, tp);
	uint32_t field;

	if (window < current) {
		if (!window)
			fast->mib.TCPWantZeroWindowAdv++;
		window = ((current + (1U << scale) - 1) >> scale) << scale;
	}
	tp->rcv_wnd = window;
	tp->rcv_wup = tp->rcv_nxt;
	field = us_min32(window, (uint32_t)UINT16_MAX << scale) >> scale;
	if (!field && old)
		fast->mib.TCPToZeroWindowAdv++;
	else if (field && !old)
		fast->mib.TCPFromZeroWindowAdv++;
	return field;
}

/* _grow_for_small */
static uint32_t us_tcp_grow_for_small(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				      uint32_t len, int64_t truesize)
{
	int64_t window = us_tcp_win_from_space(tp, fast->rmem_max) >> 1;

	truesize = us_tcp_win_from_space(tp, truesize) >> 1;
	while (tp->rcv_ssthresh <= window) {
		if (truesize <= len)
			return 2U * tp->ack_rcv_mss;
		truesize >>= 1;
		window >>= 1;
	}
	return 0;
}

/* tcp_grow_window */
void us_tcp_grow_window(const struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t len)
{
	const int64_t space = us_tcp_space(tp);
	const int64_t room = (space < tp->window_clamp ? space : tp->window_clamp) -
			     (int64_t)tp->rcv_ssthresh;
	const uint32_t truesize = us_skb_truesize(len);
	uint32_t increase;

	if (room <= 0)
		return;
	if (us_tcp_win_from_space(tp, truesize) <= len)
		increase = 2U * tp->advmss;
	else
		increase = us_tcp_grow_for_small(fast, tp, len, truesize);
	if (!increase)
		return;
	increase = us_max32(increase, 2 * len);
	tp->rcv_ssthresh += increase < room ? increase : (uint32_t)room;
	tp->ack_quick |= 1;
}

/* tcp_rcv_rtt_update */
void us_tcp_rcv_rtt_update(struct us_tcp_sock *tp, uint64_t sample_us, bool window_based)
{
	uint32_t sample;

	if (sample_us < 1)
		sample_us = 1;
	sample = sample_us > US_MAX_SAMPLE_US ? US_MAX_SAMPLE_US : (uint32_t)sample_us;
	if (!tp->rcv_rtt_us || sample << 3 < tp->rcv_rtt_us)
		tp->rcv_rtt_us = sample << 3;
	else if (!window_based && tp->rcv_nxt == tp->copied_seq)
		tp->rcv_rtt_us += sample - (tp->rcv_rtt_us >> 3);
}

/* tcp_rcv_rtt_measure */
void us_tcp_rcv_rtt_measure(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (tp->rcv_rtt_time_us) {
		if (us_before(tp->rcv_nxt, tp->rcv_rtt_seq))
			return;
		us_tcp_rcv_rtt_update(tp, fast->now_us - tp->rcv_rtt_time_us, true);
	}
	tp->rcv_rtt_seq = tp->rcv_nxt + tp->rcv_wnd;
	tp->rcv_rtt_time_us = fast->now_us;
}
