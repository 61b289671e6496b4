/*
 * A SYN to a listener about which Python has said all (tcp_v4_conn_request): what is exactly the
 * usual one becomes a request and is answered here; any other is Python's, nothing changed.
 */

#include <string.h>

#include "arena.h"
#include "siphash.h"
#include "tcp_internal.h"

#define US_TCPOPT_EOL 0
#define US_TCPOPT_NOP 1
#define US_TCPOPT_MSS 2
#define US_TCPOPT_WINDOW 3
#define US_TCPOPT_SACK_PERM 4
#define US_TCPOPT_TIMESTAMP 8
#define US_TCP_MSS_DEFAULT 536
#define US_TCP_MAX_WSCALE 14U
#define US_DEFAULT_SCALING_RATIO 128
#define US_SYNACK_TIMEOUT_US 1000000
#define US_SYNACK_DESCRIPTORS 4

/* What a SYN's options say. */
struct us_syn_options {
	uint32_t mss;
	uint32_t tsval;
	uint8_t wscale;
	bool has_wscale;
	bool has_tstamp;
	bool sack_ok;
};

/* Take one option; false: none of the usual ones. */
static bool us_syn_option(const uint8_t *opt, uint32_t len, struct us_syn_options *options)
{
	switch (opt[0]) {
	case US_TCPOPT_MSS:
		options->mss = us_get16(opt + 2);
		return len == 4;
	case US_TCPOPT_WINDOW:
		options->wscale = (uint8_t)us_min32(opt[2], US_TCP_MAX_WSCALE);
		options->has_wscale = true;
		return len == 3;
	case US_TCPOPT_SACK_PERM:
		options->sack_ok = true;
		return len == 2;
	case US_TCPOPT_TIMESTAMP:
		options->tsval = us_get32(opt + 2);
		options->has_tstamp = true;
		return len == 10;
	}
	return false;
}

/* tcp_parse_options; false: there is something that only Python knows. */
static bool us_syn_parse(const uint8_t *th, uint32_t hlen, struct us_syn_options *options)
{
	uint8_t opt[64] = {0};	/* longer than options can be: reading one never runs over */
	uint32_t i = 0;

	memcpy(opt, th + US_TCP_HLEN, hlen - US_TCP_HLEN);
	while (i < hlen - US_TCP_HLEN && opt[i] != US_TCPOPT_EOL) {
		if (opt[i] == US_TCPOPT_NOP) {
			i++;
			continue;
		}
		if (i + opt[i + 1] > hlen - US_TCP_HLEN || !us_syn_option(opt + i, opt[i + 1], options))
			return false;
		i += opt[i + 1];
	}
	return true;
}

/* secure_tcp_seq (RFC 6528 3) */
static uint32_t us_secure_tcp_seq(const struct us_tcp_fast *fast, const struct us_request_sock *req)
{
	const uint64_t digest = us_siphash_2u64(fast->secret,
						(uint64_t)req->loc_addr << 32 | req->rmt_addr,
						(uint64_t)req->loc_port << 16 | req->rmt_port);

	return (uint32_t)(digest + (fast->now_us * 1000 >> 6));
}

/* secure_tcp_ts_off (RFC 7323 5.4) */
static uint32_t us_secure_ts_offset(const struct us_tcp_fast *fast, const struct us_request_sock *req)
{
	if (fast->timestamps != 1)
		return 0;
	return (uint32_t)us_siphash_2u64(fast->secret, (uint64_t)req->rmt_addr << 32 | req->loc_addr,
					 1ULL << 32);
}

/* tcp_openreq_init_rwin, with tcp_initial_clamp and tcp_select_initial_window */
static void us_tcp_openreq_init_rwin(const struct us_tcp_fast *fast, const struct us_tcp_sock *lsk,
				     uint32_t mtu, struct us_request_sock *req)
{
	const uint32_t half = (uint32_t)((uint64_t)lsk->sk_rcvbuf * US_DEFAULT_SCALING_RATIO >> 8);
	uint32_t mss = mtu - US_IP_HLEN - US_TCP_HLEN;
	uint32_t clamp = lsk->window_clamp;
	uint32_t window, largest, wscale;

	if (lsk->user_mss)
		mss = us_min32(mss, lsk->user_mss);
	if (req->tstamp_ok)
		mss -= US_TCPOLEN_TSTAMP;
	if (lsk->rcvbuf_locked)
		clamp = us_min32(clamp ? clamp : half, half);
	if (!clamp)
		clamp = UINT16_MAX << US_TCP_MAX_WSCALE;
	window = us_min32(half, clamp);
	largest = us_min32(us_max32(fast->rmem_max, window), clamp);
	if (window > mss)
		window -= window % mss;
	req->rcv_wnd = us_min32(window, UINT16_MAX);
	if (!req->wscale_ok)
		return;
	wscale = largest ? 31 - (uint32_t)__builtin_clz(largest) : 0;
	req->rcv_wscale = (uint8_t)us_min32(wscale > 15 ? wscale - 15 : 0, US_TCP_MAX_WSCALE);
}

/* Take over what the SYN says (tcp_openreq_init). */
static void us_tcp_openreq_init(const struct us_tcp_fast *fast, const struct us_tcp_sock *lsk,
				const struct us_tcp_dst *dst, const struct us_tcp_pkt *pkt,
				const struct us_syn_options *options, struct us_request_sock *req)
{
	req->loc_addr = pkt->daddr;
	req->loc_port = pkt->dport;
	req->rmt_addr = pkt->saddr;
	req->rmt_port = pkt->sport;
	req->rcv_isn = us_get32(pkt->th + 4);
	req->rcv_nxt = req->rcv_isn + 1;
	req->syn_tos = pkt->iph[1];
	req->mss = (uint16_t)(options->mss ? options->mss : US_TCP_MSS_DEFAULT);
	if (options->mss && lsk->user_mss)
		req->mss = (uint16_t)us_min32(options->mss, lsk->user_mss);
	if (options->has_tstamp && fast->timestamps) {
		req->tstamp_ok = 1;
		req->ts_recent = options->tsval;
		req->tsoffset = us_secure_ts_offset(fast, req);
	}
	req->sack_ok = options->sack_ok && fast->sack;
	if (options->has_wscale && fast->window_scaling) {
		req->wscale_ok = 1;
		req->snd_wscale = options->wscale;
	}
	us_tcp_openreq_init_rwin(fast, lsk, dst->mtu, req);
	req->snt_isn = us_secure_tcp_seq(fast, req);
	req->snt_synack_us = fast->now_us;
	req->expires_us = fast->now_us + US_SYNACK_TIMEOUT_US;
}

/* Whether neither queue is in a state in which SYNs are dropped or answered by cookies. */
static bool us_tcp_listen_has_room(const struct us_tcp_fast *fast,
				   const struct us_tcp_listen *listen)
{
	const uint32_t limit = fast->max_syn_backlog;

	if (listen->qlen > listen->max_ack_backlog || us_acceptq_is_full(listen))
		return false;
	return fast->syncookies || (listen->qlen <= limit && limit - listen->qlen >= limit >> 2);
}

/**
 * us_tcp_offer_lookup - how the children of whoever listens are made
 * @fast:  fast path
 * @saddr: our address
 * @sport: our port
 *
 * Return: what Python has said about them; NULL: they are Python's.
 */
struct us_tcp_offer *us_tcp_offer_lookup(struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport)
{
	struct us_tcp_offer *offer = fast->offers[sport % US_TCP_OFFER_BUCKETS];

	while (offer && (offer->child.sport != sport || offer->child.saddr != saddr))
		offer = offer->next;
	return offer;
}

/**
 * us_tcp_offer_add - let C make a listener's children from now on
 * @fast:  fast path
 * @offer: what they are like; it stays where it is until us_tcp_offer_remove
 */
void us_tcp_offer_add(struct us_tcp_fast *fast, struct us_tcp_offer *offer)
{
	struct us_tcp_offer **bucket = &fast->offers[offer->child.sport % US_TCP_OFFER_BUCKETS];

	offer->next = *bucket;
	*bucket = offer;
}

/**
 * us_tcp_offer_remove - undo us_tcp_offer_add
 * @fast:  fast path
 * @offer: what was added
 */
void us_tcp_offer_remove(struct us_tcp_fast *fast, struct us_tcp_offer *offer)
{
	struct us_tcp_offer **link = &fast->offers[offer->child.sport % US_TCP_OFFER_BUCKETS];

	while (*link && *link != offer)
		link = &(*link)->next;
	if (*link)
		*link = offer->next;
}

/* tcp_conn_request; false, and nothing has happened: it is Python's. */
static bool us_tcp_conn_request(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt,
				struct us_tcp_listen *listen)
{
	const uint32_t hlen = (uint32_t)(pkt->th[12] >> 4) * 4U;
	struct us_syn_options options = {0};
	struct us_request_sock *req;
	struct us_tcp_dst *dst;

	if (hlen != pkt->len || !us_tcp_listen_has_room(fast, listen) ||
	    us_twsk_lookup(fast, pkt->daddr, pkt->dport, pkt->saddr, pkt->sport) ||
	    !us_syn_parse(pkt->th, hlen, &options))
		return false;
	dst = us_tcp_dst_lookup(fast, pkt->daddr, pkt->saddr);
	if (!dst || !us_tcp_dst_can_transmit(fast, dst) ||
	    us_igb_tx_room(dst->queue->ring) < US_SYNACK_DESCRIPTORS)
		return false;
	req = us_kmem_cache_zalloc(fast->request_cache);
	if (!req)
		return false;
	us_tcp_openreq_init(fast, listen->tp, dst, pkt, &options, req);
	req->generation = ++fast->generation;
	us_reqsk_queue_add(fast, listen, req);
	us_tcp_send_synack(fast, req, dst);	/* if it fails the timer repeats it */
	return true;
}

/* Count a packet that came up to TCP. */
void us_tcp_count_in(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt)
{
	fast->mib.InReceives++;
	fast->mib.InOctets += pkt->frame_len - US_ETH_HLEN;
	fast->mib.InDelivers++;
	fast->mib.InSegs++;
}

/*
 * A segment for no connection: a SYN to a listener, or the third ACK. False: it is Python's,
 * and so are the rest of the batch's for that listener, which must not overtake it.
 */
bool us_tcp_rcv_listen(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt)
{
	struct us_tcp_offer *offer = us_tcp_offer_lookup(fast, pkt->daddr, pkt->dport);
	struct us_request_sock *req;
	bool is_taken = false;

	if (!offer)
		return false;
	if (offer->listen->punt_batch != (uint16_t)fast->batch) {
		req = us_reqsk_lookup(fast, pkt->daddr, pkt->dport, pkt->saddr, pkt->sport);
		if (pkt->th[13] == US_TCP_SYN)
			is_taken = !req && us_tcp_conn_request(fast, pkt, offer->listen);
		else
			is_taken = req && us_tcp_check_req(fast, pkt, req, offer);
	}
	if (is_taken)
		us_tcp_count_in(fast, pkt);
	else
		offer->listen->punt_batch = (uint16_t)fast->batch;
	return is_taken;
}
