/* The SYN-ACK of a request, straight into the ring (tcp_make_synack, as ustack/tcp builds it). */

#include <string.h>

#include "checksum.h"
#include "tcp_internal.h"

#define US_TCPOLEN_SYN_MAX 20	/* MSS, SACK permitted and timestamps, window scale */

/* Options in Linux's order; return their length. */
static uint32_t us_tcp_synack_options(const struct us_tcp_fast *fast, struct us_request_sock *req,
				      uint32_t mss, uint8_t *opt)
{
	uint32_t len = 4;

	us_put32(opt, 0x02040000U | mss);
	if (req->tstamp_ok) {
		const uint32_t tsval = (uint32_t)(fast->now_us / 1000) + req->tsoffset;

		if (!req->snt_tsval_first)
			req->snt_tsval_first = tsval;
		req->snt_tsval_last = tsval;
		us_put32(opt + len, req->sack_ok ? 0x0402080aU : US_TCPOPT_TSTAMP);
		us_put32(opt + len + 4, tsval);
		us_put32(opt + len + 8, req->ts_recent);
		len += 12;
	} else if (req->sack_ok) {
		us_put32(opt + len, 0x01010402U);
		len += 4;
	}
	if (req->wscale_ok) {
		us_put32(opt + len, 0x01030300U | req->rcv_wscale);
		len += 4;
	}
	return len;
}

/**
 * us_tcp_send_synack - answer a SYN
 * @fast: fast path
 * @req:  request
 * @dst:  route to the peer, by which packets may be sent now
 *
 * Return: 0; not 0: the ring does not take it.
 */
int us_tcp_send_synack(struct us_tcp_fast *fast, struct us_request_sock *req,
		       const struct us_tcp_dst *dst)
{
	uint8_t frame[US_ETH_HLEN + US_IP_HLEN + US_TCP_HLEN + US_TCPOLEN_SYN_MAX];
	const struct us_tcp_sock *lsk = req->listen->tp;
	struct us_xmit_queue *queue = dst->queue;
	uint8_t *iph = frame + US_ETH_HLEN;
	uint8_t *th = iph + US_IP_HLEN;
	uint32_t mss = dst->mtu - US_IP_HLEN - US_TCP_HLEN;
	uint32_t len;
	int err;

	if (lsk->user_mss)
		mss = us_min32(mss, lsk->user_mss);
	memcpy(frame, dst->hh->header, US_ETH_HLEN);
	len = US_TCP_HLEN + us_tcp_synack_options(fast, req, mss, th + US_TCP_HLEN);
	us_put16(th, req->loc_port);
	us_put16(th + 2, req->rmt_port);
	us_put32(th + 4, req->snt_isn);
	us_put32(th + 8, req->rcv_nxt);
	th[12] = (uint8_t)(len << 2);
	th[13] = US_TCP_SYN | US_TCP_ACK;
	us_put16(th + 14, req->rcv_wnd);
	us_put16(th + 16, us_csum_tcpudp_nofold(req->loc_addr, req->rmt_addr, len, US_IPPROTO_TCP, 0));
	us_put16(th + 18, 0);
	if (!queue->can_sum)
		us_put16(th + 16, us_csum_fold(us_csum_partial(th, len, 0)));
	us_tcp_put_ip(iph, lsk, dst, req->loc_addr, req->rmt_addr, US_IP_HLEN + len, 0);
	err = us_tcp_ring_frame(fast, queue, frame, US_ETH_HLEN + US_IP_HLEN + len);
	if (!err)
		fast->mib.OutSegs++;
	return err;
}
