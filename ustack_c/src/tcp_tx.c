/*
 * One segment on its way down: all headers in one piece, payload by reference, descriptors
 * filled (tcp_transmit_skb, ip_queue_xmit and igb_xmit_frame in one). What to send and when
 * has been decided; the doorbell is the caller's.
 */

#include <errno.h>
#include <string.h>

#include "arena.h"
#include "checksum.h"
#include "tcp_internal.h"

#define US_INLINE_BYTES 512	/* payload up to this size is copied behind the headers */
#define US_INLINE_CUT_BYTES 1900	/* and up to this one if segments are cut here */
#define US_HEADERS_MAX (US_ETH_HLEN + US_IP_HLEN + US_TCP_HLEN + US_TCPOLEN_TSTAMP)
#define US_IP_DF 0x4000
#define US_HELD_DESCRIPTORS 32	/* frames of two descriptors that wait for their like */
#define US_DESC_PER_SEGMENT 4	/* context, headers, text that is too long for them */

/* Bytes of the IP and TCP headers. */
static uint32_t us_tcp_headers_len(const struct us_tcp_sock *tp)
{
	return US_IP_HLEN + US_TCP_HLEN + (tp->tstamp_ok ? US_TCPOLEN_TSTAMP : 0);
}

/* Write the TCP header, its checksum that of the pseudo header: the device adds the rest. */
static uint32_t us_tcp_put_header(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				  uint8_t *th, const struct us_tcp_xmit *xmit)
{
	const uint32_t hlen = us_tcp_headers_len(tp) - US_IP_HLEN;

	us_put16(th, tp->sport);
	us_put16(th + 2, tp->dport);
	us_put32(th + 4, xmit->seq);
	us_put32(th + 8, tp->rcv_nxt);
	th[12] = (uint8_t)(hlen << 2);
	th[13] = xmit->flags;
	us_put16(th + 14, xmit->window);
	us_put16(th + 16, us_csum_tcpudp_nofold(tp->saddr, tp->daddr, hlen + xmit->len,
						US_IPPROTO_TCP, 0));
	us_put16(th + 18, 0);
	if (tp->tstamp_ok) {
		us_put32(th + 20, US_TCPOPT_TSTAMP);
		us_put32(th + 24, (uint32_t)(fast->now_us / 1000) + tp->tsoffset);
		us_put32(th + 28, tp->ts_recent);
	}
	return hlen;
}

/* The IP header, by what the options of @sk say: the connection, or the listener of a request. */
void us_tcp_put_ip(uint8_t *iph, const struct us_tcp_sock *sk, const struct us_tcp_dst *dst,
		   uint32_t saddr, uint32_t daddr, uint32_t tot_len, uint32_t ident)
{
	iph[0] = 0x45;
	iph[1] = sk->tos;
	us_put16(iph + 2, tot_len);
	us_put16(iph + 4, ident);
	us_put16(iph + 6, US_IP_DF);
	iph[8] = sk->ttl ? sk->ttl : dst->ttl;
	iph[9] = US_IPPROTO_TCP;
	us_put16(iph + 10, 0);
	us_put32(iph + 12, saddr);
	us_put32(iph + 16, daddr);
	us_put16(iph + 10, us_ip_fast_csum(iph, US_IP_HLEN));
}

/* Payload from the send queue: copied behind the headers if short, else as the ring's frags. */
static int us_tcp_attach(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
			 const struct us_tcp_xmit *xmit, uint32_t inline_max, uint8_t *tail)
{
	const uint32_t offset = xmit->seq - tp->snd_una;
	int nfrags;

	if (xmit->len <= inline_max)
		return us_bq_peek(fast->mem, &tp->write_queue, offset, tail, xmit->len) ==
		       xmit->len ? 0 : -EINVAL;
	nfrags = us_bq_frags(fast->mem, &tp->write_queue, offset, xmit->len,
			     tp->dst->queue->ring->frags, US_MAX_SKB_FRAGS);
	return nfrags > 0 ? nfrags : -EMSGSIZE;
}

/* Complete the checksum that the device would leave as it is. */
static void us_tcp_put_checksum(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				uint8_t *th, uint32_t len, uint32_t nfrags)
{
	const struct us_frag *frags = tp->dst->queue->ring->frags;
	uint32_t sum = us_csum_partial(th, len, 0);
	uint32_t at = len;

	for (uint32_t f = 0; f < nfrags; at += frags[f++].len) {
		const uint8_t *bytes = us_mem_read_at(fast->mem, frags[f].addr, frags[f].len);

		sum = us_csum_block_add(sum, us_csum_partial(bytes, frags[f].len, 0), at);
	}
	us_put16(th + 16, us_csum_fold(sum));
}

/**
 * us_tcp_can_transmit - whether a connection's segments may leave without Python
 * @fast: fast path
 * @tp:   connection
 *
 * Return: 1 if its route holds, its neighbour is there, and its queue takes packets; else 0.
 */
int us_tcp_can_transmit(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	return tp->dst && us_tcp_dst_can_transmit(fast, tp->dst);
}

bool us_tcp_dst_can_transmit(const struct us_tcp_fast *fast, const struct us_tcp_dst *dst)
{
	const struct us_xmit_queue *queue = dst->queue;

	if (dst->genid != fast->genid || !dst->hh || !dst->hh->usable)
		return false;
	return queue->ring && !queue->qlen && !queue->ring->stopped;
}

/*
 * Whether the device may wait for more: few enough frames that whom they wake works on them
 * while we go on.
 */
static bool us_tcp_may_hold(const struct us_xmit_queue *queue)
{
	const struct us_igb_tx_ring *ring = queue->ring;

	if (!queue->nic)
		return true;
	return (ring->next_to_use - queue->txq->TDT + ring->count) % ring->count <
	       US_HELD_DESCRIPTORS;
}

/* Have the device send what is in the ring, and take back what it has sent if that gets short. */
static void us_tcp_ring_doorbell(struct us_tcp_fast *fast, struct us_xmit_queue *queue)
{
	struct us_igb_tx_ring *ring = queue->ring;

	if (fast->hold && us_tcp_may_hold(queue)) {
		queue->doorbell = 1;
		fast->doorbell = 1;
		return;
	}
	if (queue->nic)
		us_nic_write_tdt(queue->nic, queue->index, ring->next_to_use);
	if (queue->nic && !ring->stopped && us_igb_tx_room(ring) < ring->count / 2)
		us_igb_clean_tx_irq(ring, US_IGB_TX_WORK);
	if (!queue->nic || ring->stopped) {
		queue->doorbell = 1;
		fast->doorbell = 1;
	}
}

/* A frame that is complete but for its checksum, and short, into the ring; not 0: it is full. */
int us_tcp_ring_frame(struct us_tcp_fast *fast, struct us_xmit_queue *queue, const uint8_t *frame,
		      uint32_t len)
{
	const int err = us_igb_xmit_frame(queue->ring, frame, len, 0,
					  queue->can_sum ? US_ETH_HLEN + US_IP_HLEN : 0, 16, 0, 0);

	if (err < 0)
		return err;
	us_tcp_ring_doorbell(fast, queue);
	queue->packets++;
	queue->bytes += len;
	fast->mib.fast_tx++;
	fast->mib.OutRequests++;
	fast->mib.OutTransmits++;
	fast->mib.OutOctets += len - US_ETH_HLEN;
	return 0;
}

/* One frame into the ring: what is to be sent, cut by the device into @segs if there are several. */
static int us_tcp_xmit_frame(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			     const struct us_tcp_xmit *xmit, uint32_t segs, uint32_t inline_max)
{
	uint8_t headers[US_HEADERS_MAX + US_INLINE_CUT_BYTES];
	struct us_xmit_queue *queue = tp->dst->queue;
	uint8_t *iph = headers + US_ETH_HLEN;
	uint8_t *th = iph + US_IP_HLEN;
	uint32_t len;
	int nfrags, err;

	memcpy(headers, tp->dst->hh->header, US_ETH_HLEN);
	len = US_IP_HLEN + us_tcp_put_header(fast, tp, th, xmit);
	if (len + xmit->len > UINT16_MAX)
		return -EMSGSIZE;
	nfrags = us_tcp_attach(fast, tp, xmit, inline_max, headers + US_ETH_HLEN + len);
	if (nfrags < 0)
		return nfrags;
	us_tcp_put_ip(iph, tp, tp->dst, tp->saddr, tp->daddr, len + xmit->len, tp->inet_id);
	if (!queue->can_sum)
		us_tcp_put_checksum(fast, tp, th, len - US_IP_HLEN + (nfrags ? 0 : xmit->len),
				    (uint32_t)nfrags);
	err = us_igb_xmit_frame(queue->ring, headers,
				US_ETH_HLEN + len + (nfrags ? 0 : xmit->len), (uint32_t)nfrags,
				queue->can_sum ? US_ETH_HLEN + US_IP_HLEN : 0, 16,
				segs > 1 ? xmit->gso_size : 0, tp->generation);
	if (err < 0) {
		for (int i = 0; i < nfrags; i++)
			us_put_page(fast->mem, queue->ring->frags[i].addr);
		return err;
	}
	tp->inet_id = (uint16_t)(tp->inet_id + segs);
	us_tcp_ring_doorbell(fast, queue);
	return 0;
}

/* Whether the ring has @want descriptors, with those that its device is done with. */
static bool us_tcp_make_room(const struct us_xmit_queue *queue, uint32_t want)
{
	if (us_igb_tx_room(queue->ring) < want && queue->nic)
		us_igb_clean_tx_irq(queue->ring, US_IGB_TX_WORK);
	return us_igb_tx_room(queue->ring) >= want;
}

/* The same for a device that does not cut: each segment a frame (skb_gso_segment). */
static int us_tcp_xmit_cut(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			   const struct us_tcp_xmit *xmit, uint32_t segs)
{
	struct us_tcp_xmit part = *xmit;
	uint32_t left = xmit->len;

	if (!us_tcp_make_room(tp->dst->queue, segs * US_DESC_PER_SEGMENT + 2))
		return -EBUSY;
	part.flags = (uint8_t)(part.flags & ~(US_TCP_PSH | US_TCP_FIN));
	for (; left; left -= part.len, part.seq += part.len) {
		int err;

		part.len = us_min32(left, xmit->gso_size);
		if (part.len == left)
			part.flags = xmit->flags;
		err = us_tcp_xmit_frame(fast, tp, &part, 1, US_INLINE_CUT_BYTES);
		if (err)
			return left == xmit->len ? err : 0;	/* the rest is as if lost */
	}
	return 0;
}

/**
 * us_tcp_transmit - send a segment of an established connection
 * @fast: the stack's fast path; its now_us is the present
 * @tp:   connection
 * @xmit: what to send
 *
 * Nothing of the connection changes but its IP identification: sequence numbers, timers and
 * what is owed are the caller's.
 *
 * Return: 0; -EAGAIN not by C now (us_tcp_can_transmit), -EBUSY the ring is full, -EMSGSIZE too
 * many pieces or longer than a packet may be, -EINVAL not in the send queue, -ENOMEM; then
 * nothing was sent.
 */
int us_tcp_transmit(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
		    const struct us_tcp_xmit *xmit)
{
	const bool is_super = xmit->gso_size && xmit->len > xmit->gso_size;
	const uint32_t segs = is_super ? (xmit->len + xmit->gso_size - 1) / xmit->gso_size : 1;
	const uint32_t tot_len = us_tcp_headers_len(tp) + xmit->len;
	struct us_xmit_queue *queue;
	int err;

	if (!us_tcp_can_transmit(fast, tp))
		return -EAGAIN;
	queue = tp->dst->queue;
	if (is_super && !queue->can_cut)
		err = us_tcp_xmit_cut(fast, tp, xmit, segs);
	else
		err = us_tcp_xmit_frame(fast, tp, xmit, segs, US_INLINE_BYTES);
	if (err)
		return err;
	queue->packets += segs;
	queue->bytes += US_ETH_HLEN + tot_len;
	fast->mib.fast_tx++;
	fast->mib.OutRequests++;
	fast->mib.OutTransmits++;
	fast->mib.OutOctets += tot_len;
	return 0;
}

/* What has gone out acknowledges all: nothing is owed any more (tcp_event_ack_sent). */
void us_tcp_event_ack_sent(struct us_tcp_sock *tp)
{
	if (tp->ack_quick && tp->ack_pending & US_ACK_SCHED && !--tp->ack_quick)
		tp->ack_ato_us = US_ATO_MIN_US;
	tp->ack_pending = 0;
	tp->icsk_ack_timeout_us = 0;
	tp->last_ack_sent = tp->rcv_nxt;
}

/* Send a pure ACK (tcp_send_ack); not 0: it cannot be done here. */
int us_tcp_send_ack(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	struct us_tcp_xmit xmit = {.seq = tp->snd_nxt, .flags = US_TCP_ACK};
	int err;

	if (!us_tcp_can_transmit(fast, tp) || us_after(tp->snd_nxt, tp->snd_una + tp->snd_wnd))
		return -EAGAIN;
	xmit.window = us_tcp_select_window(fast, tp);
	err = us_tcp_transmit(fast, tp, &xmit);
	if (err)
		return err;
	us_tcp_event_ack_sent(tp);
	tp->segs_out++;
	fast->mib.OutSegs++;
	return 0;
}
