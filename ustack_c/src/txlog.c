/*
 * The log of transmissions in flight: a ring of records in pages, which the in-order ACK of
 * a connection without loss pops from. Once anything is selectively acknowledged, lost or
 * repeated Python takes the records over into a scoreboard and the log is empty.
 */

#include <string.h>

#include "arena.h"
#include "tcp.h"

#define US_TXLOG_MAX_ORDER 6
#define US_TX_PCOUNT (US_TX_PSH - 1u)

static struct us_tx_rec *us_txlog_at(const struct us_mem *mem, const struct us_txlog *log,
				     uint32_t index)
{
	struct us_tx_rec *ring = (struct us_tx_rec *)(void *)(mem->base + log->ring);

	return &ring[(log->head + index) & (log->room - 1)];
}

/* A ring of twice the size, in order from its start; the old one stays if there is no memory. */
static int us_txlog_grow(struct us_mem *mem, struct us_txlog *log)
{
	const uint32_t used = log->len - 1;
	const uint32_t first_room = (uint32_t)(US_PAGE_SIZE / sizeof(struct us_tx_rec));
	const uint32_t room = log->room ? log->room * 2 : first_room;
	struct us_tx_rec *to;
	us_dma_addr_t ring;
	uint32_t order = 0;

	while (first_room << order < room)
		order++;
	if (order > US_TXLOG_MAX_ORDER)
		return -1;
	ring = us_alloc_pages(mem, order);
	if (ring == US_NO_PAGE)
		return -1;
	to = (struct us_tx_rec *)(void *)(mem->base + ring);
	for (uint32_t i = 0; i < used; i++)
		to[i] = *us_txlog_at(mem, log, i);
	if (log->ring != US_NO_PAGE)
		us_put_page(mem, log->ring);
	log->ring = ring;
	log->room = room;
	log->head = 0;
	return 0;
}

/* Without memory the newest record grows: its age is that of its oldest part. */
static int us_txlog_merge(struct us_mem *mem, struct us_txlog *log, uint32_t end_seq,
			  uint32_t pcount)
{
	uint16_t *have = &log->first_pcount;
	uint32_t *end = &log->first_end;
	uint32_t segs;

	if (log->len > 1) {
		struct us_tx_rec *rec = us_txlog_at(mem, log, log->len - 2);

		have = &rec->pcount;
		end = &rec->end_seq;
	}
	segs = (*have & US_TX_PCOUNT) + (pcount & US_TX_PCOUNT);
	if (segs > US_TX_PCOUNT)
		return -1;
	*have = (uint16_t)(segs | (pcount & US_TX_PSH));
	*end = end_seq;
	log->last_end = end_seq;
	return 0;
}

/**
 * us_tcp_tx_push - note a transmission behind all others and count its segments
 * @mem: arena of the ring
 * @tp: the connection
 * @end_seq: one past its last byte (SYN and FIN counted); it starts where the last one ends
 * @pcount: segments of it, 1 to 32767, and US_TX_PSH if the last one has PSH
 * @mss: payload of a full segment
 * @now_us: stack time; 0 if an RTT must not be measured with it
 *
 * Return: 0; -1, nothing changed: no memory, and the newest record cannot take it in.
 */
int us_tcp_tx_push(struct us_mem *mem, struct us_tcp_sock *tp, uint32_t end_seq, uint32_t pcount,
		   uint32_t mss, uint64_t now_us)
{
	struct us_txlog *log = &tp->txlog;
	struct us_tx_rec *rec;

	if (!log->len) {
		log->first_end = end_seq;
		log->first_pcount = (uint16_t)pcount;
		log->first_mss = (uint16_t)mss;
		log->first_us = now_us;
	} else {
		if (log->len - 1 == log->room && us_txlog_grow(mem, log) < 0) {
			if (us_txlog_merge(mem, log, end_seq, pcount) < 0)
				return -1;
			tp->packets_out += pcount & US_TX_PCOUNT;
			return 0;
		}
		rec = us_txlog_at(mem, log, log->len - 1);
		rec->end_seq = end_seq;
		rec->pcount = (uint16_t)pcount;
		rec->mss = (uint16_t)mss;
		rec->sent_us = now_us;
	}
	log->len++;
	log->last_end = end_seq;
	tp->packets_out += pcount & US_TX_PCOUNT;
	return 0;
}

/* Make the next record the first; the ring goes with its last one. */
static void us_txlog_pop(struct us_mem *mem, struct us_txlog *log)
{
	log->len--;
	if (log->len) {
		const struct us_tx_rec *rec = us_txlog_at(mem, log, 0);

		log->first_end = rec->end_seq;
		log->first_pcount = rec->pcount;
		log->first_mss = rec->mss;
		log->first_us = rec->sent_us;
		log->head = (log->head + 1) & (log->room - 1);
	}
	if (log->len < 2 && log->ring != US_NO_PAGE) {
		us_put_page(mem, log->ring);
		log->ring = US_NO_PAGE;
		log->room = 0;
		log->head = 0;
	}
}

static void us_txlog_note(struct us_tx_acked *out, const struct us_txlog *log, uint32_t pkts)
{
	out->pkts += pkts;
	out->end_seq = log->first_end;
	if (!log->first_us) {
		out->ambiguous = 1;
		return;
	}
	if (!out->first_us)
		out->first_us = log->first_us;
	out->last_us = log->first_us;
}

/**
 * us_tcp_tx_ack - take off what a cumulative acknowledgment covers, packets_out too
 * @mem: arena of the ring
 * @tp: the connection
 * @una: SND.UNA before it
 * @ack: SEG.ACK, after @una and at most SND.NXT
 * @out: what was taken off
 *
 * Of a super-frame that is covered in part those segments go that are (tcp_tso_acked).
 *
 * Return: the segments taken off.
 */
uint32_t us_tcp_tx_ack(struct us_mem *mem, struct us_tcp_sock *tp, uint32_t una, uint32_t ack,
		       struct us_tx_acked *out)
{
	struct us_txlog *log = &tp->txlog;

	memset(out, 0, sizeof(*out));
	while (log->len && (int32_t)(log->first_end - ack) <= 0) {
		us_txlog_note(out, log, log->first_pcount & US_TX_PCOUNT);
		out->whole = 1;
		una = log->first_end;
		us_txlog_pop(mem, log);
	}
	if (log->len && (log->first_pcount & US_TX_PCOUNT) > 1 && log->first_mss &&
	    (int32_t)(ack - una) > 0) {
		const uint32_t segs = log->first_pcount & US_TX_PCOUNT;
		const uint32_t left = (log->first_end - ack + log->first_mss - 1) / log->first_mss;

		if (left < segs) {
			us_txlog_note(out, log, segs - left);
			out->whole = 0;
			log->first_pcount = (uint16_t)(left | (log->first_pcount & US_TX_PSH));
		}
	}
	tp->packets_out -= out->pkts;
	return out->pkts;
}

/**
 * us_tcp_tx_copy - read the log
 * @mem: arena of the ring
 * @tp: the connection
 * @dst: receives at most @max records, oldest first
 * @max: places in @dst
 *
 * Return: the records copied.
 */
uint32_t us_tcp_tx_copy(const struct us_mem *mem, const struct us_tcp_sock *tp,
			struct us_tx_rec *dst, uint32_t max)
{
	const struct us_txlog *log = &tp->txlog;
	const uint32_t n = log->len < max ? log->len : max;

	if (!n)
		return 0;
	dst[0].end_seq = log->first_end;
	dst[0].pcount = log->first_pcount;
	dst[0].mss = log->first_mss;
	dst[0].sent_us = log->first_us;
	for (uint32_t i = 1; i < n; i++)
		dst[i] = *us_txlog_at(mem, log, i - 1);
	return n;
}

/**
 * us_tcp_tx_purge - empty the log and give its ring back; packets_out stays
 * @mem: arena of the ring
 * @tp: the connection
 */
void us_tcp_tx_purge(struct us_mem *mem, struct us_tcp_sock *tp)
{
	struct us_txlog *log = &tp->txlog;

	if (log->ring != US_NO_PAGE)
		us_put_page(mem, log->ring);
	memset(log, 0, sizeof(*log));
}
