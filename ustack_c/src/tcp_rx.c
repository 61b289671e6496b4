/*
 * Received frames up to TCP: every check that IPv4 and TCP make on headers, the lookup, and
 * header prediction (tcp_rcv_established). What is not exactly predicted is Python's, unchanged.
 */

#include <string.h>

#include "arena.h"
#include "checksum.h"
#include "tcp_internal.h"

#define US_ETH_P_IP 0x0800
#define US_IP_MF_OFFSET 0x3fff

/* Sequence numbers and the timestamp of a segment whose options are the usual ones. */
static bool us_tcp_parse_header(const uint8_t *th, uint32_t len, bool tstamp_ok,
				struct us_tcp_seg *seg)
{
	const uint32_t hlen = (uint32_t)(th[12] >> 4) * 4U;

	if ((th[12] & 15) || (th[13] & ~(US_TCP_PSH | US_TCP_FIN)) != US_TCP_ACK || hlen > len)
		return false;
	if (hlen == US_TCP_HLEN + US_TCPOLEN_TSTAMP) {
		if (!tstamp_ok || us_get32(th + 20) != US_TCPOPT_TSTAMP)
			return false;
		seg->tsval = us_get32(th + 24);
		seg->tsecr = us_get32(th + 28);
	} else if (hlen != US_TCP_HLEN || tstamp_ok) {
		return false;
	}
	seg->seq = us_get32(th + 4);
	seg->ack = us_get32(th + 8);
	seg->window = us_get16(th + 14);
	seg->psh = th[13] & US_TCP_PSH;
	seg->fin = th[13] & US_TCP_FIN;
	seg->payload = th + hlen;
	seg->len = len - hlen;
	return true;
}

/* Look at the headers that every packet for TCP has; false: not all is in order, or unusual. */
static bool us_tcp_parse_ip(const struct us_tcp_fast *fast, const uint8_t *mac,
			    const struct us_igb_rx_frame *frame, struct us_tcp_pkt *pkt)
{
	const uint8_t *eth = fast->mem->base + frame->addr;
	const uint8_t *iph = eth + US_ETH_HLEN;
	const uint8_t *th = iph + US_IP_HLEN;
	uint32_t tot_len;

	if (frame->len < US_ETH_HLEN + US_IP_HLEN + US_TCP_HLEN)
		return false;
	tot_len = us_get16(iph + 2);
	if (us_get16(eth + 12) != US_ETH_P_IP || memcmp(eth, mac, 6) || iph[0] != 0x45 ||
	    iph[1] & 3 || iph[9] != US_IPPROTO_TCP || (us_get16(iph + 6) & US_IP_MF_OFFSET) ||
	    tot_len < US_IP_HLEN + US_TCP_HLEN || tot_len + US_ETH_HLEN > frame->len ||
	    us_ip_fast_csum(iph, US_IP_HLEN))
		return false;
	pkt->iph = iph;
	pkt->th = th;
	pkt->frame_len = frame->len;
	pkt->len = tot_len - US_IP_HLEN;
	pkt->saddr = us_get32(iph + 12);
	pkt->daddr = us_get32(iph + 16);
	pkt->sport = (uint16_t)us_get16(th);
	pkt->dport = (uint16_t)us_get16(th + 2);
	return true;
}

static bool us_tcp_checksum_is_right(const struct us_igb_rx_frame *frame,
				     const struct us_tcp_pkt *pkt)
{
	return frame->ip_summed || !us_csum_tcpudp_magic(pkt->saddr, pkt->daddr, pkt->len,
							 US_IPPROTO_TCP,
							 us_csum_partial(pkt->th, pkt->len, 0));
}

/* Whose segment this is, if every header is in order and it is the usual kind; else false. */
static bool us_tcp_parse(const struct us_tcp_fast *fast, const uint8_t *mac,
			 const struct us_igb_rx_frame *frame, struct us_tcp_pkt *pkt,
			 struct us_tcp_seg *seg)
{
	struct us_flow flow;

	if (!us_tcp_parse_ip(fast, mac, frame, pkt))
		return false;
	flow = (struct us_flow){pkt->daddr, pkt->saddr, pkt->dport, pkt->sport};
	seg->tp = us_flow_table_lookup(fast->ehash, &flow);
	if (!seg->tp || !us_tcp_parse_header(pkt->th, pkt->len, seg->tp->tstamp_ok, seg))
		return false;
	seg->gso_size = frame->gso_size;
	seg->iph = pkt->iph;
	seg->large = frame->large;
	seg->ip_len = pkt->len + US_IP_HLEN;
	return us_tcp_checksum_is_right(frame, pkt);
}

/* Whether a frame that is for no connection is a plain part of a handshake, and was taken. */
static bool us_tcp_rcv_handshake(struct us_tcp_fast *fast, const struct us_igb_rx_frame *frame,
				 const struct us_tcp_pkt *pkt)
{
	const uint32_t hlen = (uint32_t)(pkt->th[12] >> 4) * 4U;

	if (!fast->on || frame->gso_size || (pkt->th[12] & 15) || hlen < US_TCP_HLEN ||
	    hlen > pkt->len || !us_tcp_checksum_is_right(frame, pkt))
		return false;
	return us_tcp_rcv_listen(fast, pkt);
}

/* Whether a frame that is for no connection is the FIN that a mini-socket waits for, and was taken. */
static bool us_tcp_rcv_timewait(struct us_tcp_fast *fast, const struct us_igb_rx_frame *frame,
				const struct us_tcp_pkt *pkt, struct us_tcp_seg *seg)
{
	struct us_timewait_sock *tw;

	tw = us_twsk_lookup(fast, pkt->daddr, pkt->dport, pkt->saddr, pkt->sport);
	if (!tw)
		return false;
	if (fast->on && fast->tw_punt_batch != fast->batch &&
	    us_tcp_parse_header(pkt->th, pkt->len, tw->tstamp_ok, seg) &&
	    us_tcp_checksum_is_right(frame, pkt) && us_tcp_timewait_fin(fast, tw, seg)) {
		us_tcp_count_in(fast, pkt);
		return true;
	}
	fast->tw_punt_batch = fast->batch;
	return false;
}

static bool us_tcp_has_room(const struct us_tcp_sock *tp, uint32_t len)
{
	return len <= us_tcp_receive_window(tp) &&
	       (uint64_t)tp->receive_queue.len + len <= tp->sk_rcvbuf;
}

/*
 * Whether an ACK is owed at once for text that came with an ACK of new data. Python sends it,
 * after what that ACK let go; were text behind it taken first, one ACK would stand for both.
 */
static bool us_tcp_owes_ack(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	return us_tcp_has_event(fast, tp, US_TCP_EV_ACKED | US_TCP_EV_XMIT) &&
	       tp->ack_pending & US_ACK_SCHED && us_tcp_acks_now(fast, tp);
}

/*
 * Whether the segment is exactly what its connection expects. Once one of a batch was not,
 * those behind it are Python's too: they must not overtake it.
 */
static bool us_tcp_is_predicted(const struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	const struct us_tcp_sock *tp = seg->tp;

	if (!us_tcp_can_send(tp) || tp->slow || tp->ecn_flags || tp->fin_queued ||
	    tp->punt_batch == (uint16_t)fast->batch || tp->ack_pending & US_ACK_NOMEM)
		return false;
	if (tp->rcv_shutdown && (tp->state == US_TCP_ESTABLISHED || seg->len || seg->fin))
		return false;
	if (seg->seq != tp->rcv_nxt || !us_tcp_has_room(tp, seg->len))
		return false;
	if (tp->tstamp_ok && us_before(seg->tsval, tp->ts_recent))
		return false;
	if (seg->ack == tp->snd_una && us_tcp_owes_ack(fast, seg->tp))
		return false;
	return us_tcp_ack_is_plain(seg) && us_tcp_can_transmit(fast, tp);
}

/* Whether GRO would make @next part of @seg (tcp_gro_receive, inet_gro_receive). */
static bool us_tcp_gro_joins(const struct us_tcp_seg *seg, const struct us_tcp_seg *next)
{
	const uint32_t mss = seg->nframes > 1 ? seg->gso_size : seg->len;
	const uint32_t step = (uint16_t)(us_get16(next->iph + 4) - us_get16(seg->iph + 4));

	if (next->tp != seg->tp || next->gso_size || (!seg->nframes && seg->gso_size))
		return false;
	if (seg->psh || seg->len % mss || !next->len || next->len > mss ||
	    next->seq != seg->seq + seg->len || seg->ip_len + next->len > UINT16_MAX)
		return false;
	if (next->ack != seg->ack || next->window != seg->window || next->tsval != seg->tsval ||
	    next->tsecr != seg->tsecr || next->iph[1] != seg->iph[1] ||
	    next->iph[8] != seg->iph[8] || us_get16(next->iph + 6) != us_get16(seg->iph + 6))
		return false;
	return step == seg->nframes * seg->ident_step || (seg->nframes == 1 && !step);
}

/*
 * Join the frames behind the first that GRO would have made one packet with it, as far as
 * the connection has room for all of them. Return the frames that @seg stands for, negative
 * if they are Python's: the last of them is a FIN, and not a plain one.
 */
static int us_tcp_gro(const struct us_tcp_fast *fast, const uint8_t *mac,
		      const struct us_igb_rx_frame *frames, int count, struct us_tcp_seg *seg)
{
	seg->nframes = 1;
	seg->ident_step = 1;
	seg->pieces[0].bytes = seg->payload;
	seg->pieces[0].len = seg->len;
	if (seg->gso_size || !seg->len || !fast->gro)
		return 1;
	while ((int)seg->nframes < count && !seg->fin) {
		struct us_tcp_piece *piece = &seg->pieces[seg->nframes];
		struct us_tcp_seg next = {0};
		struct us_tcp_pkt pkt;

		if (!us_tcp_parse(fast, mac, &frames[seg->nframes], &pkt, &next) ||
		    !us_tcp_gro_joins(seg, &next) || !us_tcp_has_room(seg->tp, seg->len + next.len))
			break;
		if (us_get16(next.iph + 4) == us_get16(seg->iph + 4))
			seg->ident_step = 0;
		if (seg->nframes == 1)
			seg->gso_size = seg->len;
		piece->bytes = next.payload;
		piece->len = next.len;
		seg->nframes++;
		seg->len += next.len;
		seg->ip_len += next.len;
		seg->psh = next.psh;
		seg->fin = next.fin;
	}
	return us_tcp_ack_is_plain(seg) ? (int)seg->nframes : -(int)seg->nframes;
}

/*
 * New data was acknowledged: send what may go now, which may carry our own ACK. False: Python
 * is to, and then looks what is still owed.
 */
static bool us_tcp_data_snd_check(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (!us_tcp_write_xmit(fast, tp, tp->nonagle)) {
		us_tcp_event(fast, tp, US_TCP_EV_XMIT);
		return false;
	}
	us_tcp_check_space(fast, tp);
	return true;
}

/* A segment, or as many as the super-frame stands for, has come in (ip_rcv, tcp_segs_in). */
void us_tcp_count_segment(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	uint32_t segs = 1;

	fast->mib.InReceives++;
	fast->mib.InOctets += seg->ip_len;
	fast->mib.InDelivers++;
	fast->mib.InSegs++;
	if (seg->gso_size && seg->len)
		segs = (seg->len + seg->gso_size - 1) / seg->gso_size;
	seg->tp->segs_in += segs;
	if (seg->len)
		seg->tp->data_segs_in += segs;
}

/* Take a predicted segment. */
static void us_tcp_consume(struct us_tcp_fast *fast, const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;
	const bool is_acking = seg->ack != tp->snd_una;
	bool is_done = true;

	us_tcp_count_segment(fast, seg);
	if (is_acking)
		is_done = us_tcp_ack(fast, seg);
	else if (seg->fin)
		us_tcp_ack_again(fast, seg);
	us_tcp_replace_ts_recent(fast, seg);
	if (seg->len) {
		us_tcp_data_queue(fast, tp, seg);
		us_tcp_wake_reader(fast, tp, US_TCP_EV_READABLE);
	}
	if (seg->fin)
		us_tcp_fin(fast, tp);
	if (!is_acking) {
		fast->mib.TCPHPHits += !seg->fin;
	} else if (!is_done || !us_tcp_data_snd_check(fast, tp)) {
		if (seg->len || seg->fin)
			tp->punt_batch = (uint16_t)fast->batch;	/* what comes behind it has another ACK */
		return;
	}
	us_tcp_ack_snd_check(fast, tp);
}

/*
 * Take the first of some frames, and those that GRO makes one with it. Return how many that
 * were, negative if they are left.
 */
static int us_tcp_take(struct us_tcp_fast *fast, const uint8_t *mac,
		       const struct us_igb_rx_frame *frames, int count, struct us_tcp_seg *seg)
{
	struct us_tcp_pkt pkt = {0};
	int n;

	if (!us_tcp_memory_abounds(fast))
		return -1;
	if (!us_tcp_parse(fast, mac, frames, &pkt, seg)) {
		if (!pkt.th || seg->tp)
			return -1;
		return us_tcp_rcv_timewait(fast, frames, &pkt, seg) ||
		       us_tcp_rcv_handshake(fast, frames, &pkt) ? 1 : -1;
	}
	if (us_tcp_is_predicted(fast, seg)) {
		n = us_tcp_gro(fast, mac, frames, count, seg);
		if (n > 0)
			us_tcp_consume(fast, seg);
		return n;
	}
	return us_tcp_orphan_rcv(fast, seg) ? 1 : -1;
}

/**
 * us_tcp_fast_rx - let connections take the frames that they expect
 * @fast:   fast path; its now_us and genid are the present's
 * @mac:    address of the device that received them
 * @frames: what the driver found; those that are left for Python are moved to the front
 * @count:  their number, US_IGB_RX_BUDGET at most
 *
 * fast->events then says what Python has to do for the connections that took some, and
 * fast->letters has the text of those whose readers want it at once.
 *
 * Return: frames that are left.
 */
int us_tcp_fast_rx(struct us_tcp_fast *fast, const uint8_t *mac, struct us_igb_rx_frame *frames,
		   int count)
{
	struct us_tcp_piece pieces[US_IGB_RX_BUDGET];
	int left = 0;
	int n;

	fast->nevents = 0;
	fast->batch++;
	for (int i = 0; i < count; i += n) {
		struct us_tcp_seg seg = {.pieces = pieces};

		n = us_tcp_take(fast, mac, &frames[i], count - i, &seg);
		if (n > 0) {
			fast->mib.fast_rx += (uint64_t)n;
			continue;
		}
		n = -n;
		if (seg.tp)
			seg.tp->punt_batch = (uint16_t)fast->batch;
		for (int k = i; k < i + n; k++)
			frames[left++] = frames[k];
	}
	us_tcp_fill_inbox(fast);
	fast->mib.punted += (uint64_t)left;
	return left;
}
