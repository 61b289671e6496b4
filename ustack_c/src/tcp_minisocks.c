/*
 * The third ACK (tcp_check_req), and the child that it makes (tcp_create_openreq_child,
 * tcp_init_transfer in ustack/tcp/child.py). The child has no Python object until somebody asks
 * for it, which accept() does.
 */

#include <string.h>

#include "arena.h"
#include "siphash.h"
#include "tcp_internal.h"

#define US_TCP_MSS_DEFAULT 536U
#define US_TCP_MIN_MSS 88U
#define US_MIN_MTU 68
#define US_INFINITE_SSTHRESH 0x7fffffff
#define US_TIMEOUT_FALLBACK_US 3000000
#define US_METRICS_TIMEOUT_US 3600000000ULL
#define US_TCP_MAX_WSCALE 14

/* Whether the ACK is exactly the one that the SYN-ACK asks for; its timestamp then is @tsval. */
static bool us_tcp_is_third_ack(const struct us_tcp_pkt *pkt, const struct us_request_sock *req,
				uint32_t *tsval)
{
	const uint8_t *th = pkt->th;
	uint32_t tsecr;

	if (th[13] != US_TCP_ACK || us_get32(th + 4) != req->rcv_nxt ||
	    us_get32(th + 8) != req->snt_isn + 1 || !us_get16(th + 14))
		return false;
	*tsval = 0;
	if (!req->tstamp_ok)
		return pkt->len == US_TCP_HLEN;
	if (pkt->len != US_TCP_HLEN + US_TCPOLEN_TSTAMP || (th[12] >> 4) * 4 != (int)pkt->len ||
	    us_get32(th + 20) != US_TCPOPT_TSTAMP)
		return false;
	*tsval = us_get32(th + 24);
	tsecr = us_get32(th + 28);
	if (tsecr && (us_before(tsecr, req->snt_tsval_first) || us_after(tsecr, req->snt_tsval_last)))
		return false;
	return !us_before(*tsval, req->ts_recent);
}

/* What is known about the peer is nothing that only Python can begin with. */
static bool us_tcp_metrics_are_plain(const struct us_tcp_fast *fast, const struct us_tcp_dst *dst)
{
	const struct us_tcp_metrics *metrics = dst->metrics;

	if (!metrics)
		return true;
	return !metrics->forgotten && fast->now_us - metrics->stamp_us <= US_METRICS_TIMEOUT_US &&
	       (!metrics->reordering || metrics->reordering == fast->reordering);
}

/* tcp_init_metrics */
static void us_tcp_init_metrics(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const struct us_tcp_metrics *metrics = tp->dst->metrics;
	const uint32_t known = metrics ? metrics->rtt : 0;

	tp->snd_ssthresh = US_INFINITE_SSTHRESH;
	if (metrics && metrics->ssthresh && !fast->no_ssthresh_metrics_save)
		tp->snd_ssthresh = metrics->ssthresh;
	if (known > tp->srtt_us)
		tp->rto_us = (known >> 3) + us_max32(2 * (known >> 3), US_RTO_MIN_US);
}

/* What the listener and the stack decide of a child. */
static void us_tcp_copy_listener(const struct us_tcp_offer *offer, struct us_tcp_sock *tp)
{
	const struct us_tcp_sock *child = &offer->child;
	const struct us_tcp_sock *lsk = offer->listen->tp;

	tp->state = US_TCP_ESTABLISHED;
	tp->rcvbuf_locked = child->rcvbuf_locked;
	tp->sndbuf_locked = child->sndbuf_locked;
	tp->nonagle = child->nonagle;
	tp->user_mss = child->user_mss;
	tp->notsent_lowat = child->notsent_lowat;
	tp->icsk_rto_min_us = child->icsk_rto_min_us;
	tp->icsk_rto_max_us = child->icsk_rto_max_us;
	tp->tos = child->tos;
	tp->ttl = child->ttl;
	tp->ca_kind = child->ca_kind;
	tp->scaling_ratio = child->scaling_ratio;
	tp->bind_share = child->bind_share;
	tp->sockopts = child->sockopts;
	tp->ends_plainly = child->ends_plainly;
	tp->sk_rcvbuf = lsk->sk_rcvbuf;
	tp->sk_sndbuf = lsk->sk_sndbuf;
	tp->window_clamp = lsk->window_clamp;
}

/* _copy_request */
static void us_tcp_copy_request(const struct us_request_sock *req, struct us_tcp_sock *tp)
{
	tp->saddr = req->loc_addr;
	tp->sport = req->loc_port;
	tp->daddr = req->rmt_addr;
	tp->dport = req->rmt_port;
	tp->irs = req->rcv_isn;
	tp->iss = req->snt_isn;
	tp->rcv_nxt = tp->rcv_wup = tp->copied_seq = tp->last_ack_sent = req->rcv_isn + 1;
	tp->snd_una = tp->snd_nxt = tp->write_seq = tp->snd_sml = req->snt_isn + 1;
	tp->pushed_seq = tp->high_seq = tp->cwnd_usage_seq = tp->snd_nxt;
	tp->rcv_wnd = tp->rcv_ssthresh = req->rcv_wnd;
	tp->tstamp_ok = req->tstamp_ok;
	tp->sack_ok = req->sack_ok;
	tp->wscale_ok = req->wscale_ok;
	tp->snd_wscale = req->snd_wscale;
	tp->rcv_wscale = req->rcv_wscale;
	tp->rx_opt_mss = req->mss;
	tp->tsoffset = req->tsoffset;
}

/* tcp_sync_mss, with tcp_bound_to_half_wnd */
static void us_tcp_sync_mss(const struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t mtu)
{
	const uint32_t tstamp = tp->tstamp_ok ? US_TCPOLEN_TSTAMP : 0;
	const uint32_t cutoff = tp->max_window > US_TCP_MSS_DEFAULT ? tp->max_window >> 1
								     : tp->max_window;
	uint32_t mss = us_min32(mtu - US_IP_HLEN - US_TCP_HLEN,
				tp->rx_opt_mss ? tp->rx_opt_mss : US_TCP_MSS_DEFAULT);

	if (tp->user_mss)
		mss = us_min32(mss, tp->user_mss);
	mss = us_max32(mss, fast->min_snd_mss) - tstamp;
	if (cutoff && mss > cutoff)
		mss = us_max32(cutoff, US_MIN_MTU - US_TCP_HLEN - tstamp);
	tp->pmtu_mss = (uint16_t)(mtu - US_IP_HLEN - US_TCP_HLEN);
	tp->mss_cache = (uint16_t)mss;
}

/* tcp_init_buffer_space */
static void us_tcp_init_buffer_space(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const uint32_t most = us_tcp_win_of_buffer(tp);
	uint32_t clamp = tp->window_clamp ? tp->window_clamp : UINT16_MAX << US_TCP_MAX_WSCALE;

	clamp = us_min32(clamp, (uint32_t)UINT16_MAX << tp->rcv_wscale);
	if (clamp >= most) {
		clamp = most;
		if (fast->app_win && most > 4U * tp->advmss)
			clamp = us_max32(most - (most >> fast->app_win), 4U * tp->advmss);
	}
	if (fast->app_win && clamp > 2U * tp->advmss && clamp + tp->advmss > most)
		clamp = us_max32(2U * tp->advmss, most - tp->advmss);
	tp->window_clamp = clamp;
	tp->rcv_ssthresh = us_min32(tp->rcv_wnd, clamp);
	tp->rcvq_space = us_min32(us_min32(tp->rcv_ssthresh, tp->rcv_wnd), 10U * tp->advmss);
	tp->rcvq_space_seq = tp->copied_seq;
	tp->rcvq_space_time_us = fast->now_us;
}

/* tcp_init_transfer */
static void us_tcp_init_transfer(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	uint32_t mss;

	us_tcp_sync_mss(fast, tp, tp->dst->mtu);
	tp->advmss = tp->pmtu_mss;
	if (tp->tstamp_ok)
		tp->advmss = (uint16_t)(tp->advmss - US_TCPOLEN_TSTAMP);
	mss = us_min32(us_min32(tp->advmss, tp->mss_cache), us_min32(tp->rcv_wnd >> 1, US_TCP_MSS_DEFAULT));
	tp->ack_rcv_mss = (uint16_t)us_max32(mss, US_TCP_MIN_MSS);
	tp->snd_cwnd = fast->init_cwnd;
	us_tcp_init_metrics(fast, tp);
	us_tcp_update_pacing_rate(fast, tp);
	us_tcp_init_buffer_space(fast, tp);
	if (!tp->sndbuf_locked)
		us_tcp_sndbuf_expand(fast, tp);
}

/* The first identification of a connection's packets (TcpProt.secure_ip_id). */
static uint16_t us_secure_ip_id(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	return (uint16_t)us_siphash_2u64(fast->secret, (uint64_t)tp->saddr << 32 | tp->daddr,
					 (uint64_t)tp->iss << 32 | (uint32_t)tp->sport << 16 |
					 tp->dport);
}

/* Make the child, in the established hash and on its port. */
static void us_tcp_make_child(struct us_tcp_fast *fast, const struct us_request_sock *req,
			      const struct us_tcp_offer *offer, struct us_tcp_dst *dst,
			      uint32_t window, struct us_tcp_sock *tp)
{
	const uint32_t rtt_us = us_tcp_elapsed(fast, req->snt_synack_us);

	us_tcp_copy_listener(offer, tp);
	us_tcp_copy_request(req, tp);
	tp->inet_id = us_secure_ip_id(fast, tp);
	tp->snd_wnd = tp->max_window = window << tp->snd_wscale;
	tp->snd_wl1 = req->rcv_nxt;
	tp->ts_recent_stamp_us = tp->ack_lrcvtime_us = tp->lsndtime_us = fast->now_us;
	tp->snd_cwnd_stamp_us = tp->rcv_tstamp_us = fast->now_us;
	tp->segs_in = 2;	/* the SYN and this one */
	tp->delivered = 1;	/* the SYN-ACK */
	dst->refs++;
	tp->dst = dst;
	us_tcp_ack_update_rtt(fast, tp, rtt_us, rtt_us);
	us_tcp_init_transfer(fast, tp);
	us_bind_share_get(fast, tp->bind_share);
	us_tcp_hash(fast, tp);
	fast->mib.PassiveOpens++;
	fast->mib.CurrEstab++;
}

/*
 * A segment for a half-open connection. False, and nothing has happened: it is not what was
 * expected, or not now.
 */
bool us_tcp_check_req(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt,
		      struct us_request_sock *req, const struct us_tcp_offer *offer)
{
	struct us_tcp_listen *listen = offer->listen;
	struct us_tcp_dst *dst;
	struct us_tcp_sock *tp;
	uint32_t tsval;

	if (req->listen != listen || req->num_retrans || req->acked || req->ecn_ok ||
	    !us_tcp_is_third_ack(pkt, req, &tsval) || us_acceptq_is_full(listen))
		return false;
	dst = us_tcp_dst_lookup(fast, req->loc_addr, req->rmt_addr);
	if (!dst || !us_tcp_dst_can_transmit(fast, dst) || !us_tcp_metrics_are_plain(fast, dst))
		return false;
	tp = us_kmem_cache_zalloc(fast->tcp_cache);
	if (!tp)
		return false;
	tp->place = us_tcp_place(fast, tp);
	tp->generation = ++fast->generation;
	if (us_acceptq_add(listen, us_tcp_handle(tp))) {
		us_kmem_cache_free(fast->tcp_cache, tp);
		return false;
	}
	us_tcp_make_child(fast, req, offer, dst, us_get16(pkt->th + 14), tp);
	tp->ts_recent = tsval;
	us_reqsk_queue_remove(fast, req);
	us_kmem_cache_free(fast->request_cache, req);
	us_tcp_event(fast, listen->tp, US_TCP_EV_ACCEPT);
	return true;
}
