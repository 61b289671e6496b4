#ifndef USTACK_TCP_INTERNAL_H
#define USTACK_TCP_INTERNAL_H

/* What the files of TCP's fast path share. */

#include <stdbool.h>
#include <stddef.h>

#include "flow_table.h"
#include "tcp_fast.h"

#define US_PAGES_AT_LEAST 256	/* with fewer free an append might fail: Python says what then */
#define US_TCP_ESTABLISHED 1
#define US_TCP_FIN_WAIT1 4
#define US_TCP_FIN_WAIT2 5
#define US_TCP_TIME_WAIT 6
#define US_TCP_CLOSE_WAIT 8
#define US_TCP_LAST_ACK 9

#define US_LARGE_ORDER 4	/* of the buffers that hold a super-frame */
#define US_LARGE_BYTES (US_PAGE_SIZE << US_LARGE_ORDER)

#define US_TCP_FIN 0x01
#define US_TCP_SYN 0x02
#define US_TCP_PSH 0x08
#define US_TCP_ACK 0x10

#define US_ETH_HLEN 14
#define US_IP_HLEN 20
#define US_TCP_HLEN 20
#define US_IPPROTO_TCP 6
#define US_TCPOLEN_TSTAMP 12	/* two NOPs in front */
#define US_TCPOPT_TSTAMP 0x0101080aU

#define US_ICSK_TIME_NONE 0
#define US_ICSK_TIME_RETRANS 1
#define US_ICSK_TIME_PROBE0 3
#define US_ICSK_TIME_LOSS_PROBE 5
#define US_ICSK_TIME_REO_TIMEOUT 6

#define US_RTO_MIN_US 200000
#define US_TIMEWAIT_LEN_US 60000000
#define US_ACK_DESCRIPTORS 4	/* of the ring, for an ACK */

#define US_ACK_SCHED 1
#define US_ACK_TIMER 2
#define US_ACK_PUSHED 4
#define US_ACK_PUSHED2 8
#define US_ACK_NOW 16
#define US_ACK_NOMEM 32

#define US_ATO_MIN_US 40000

#define US_TCP_CA_OPEN 0

#define US_RCV_SHUTDOWN 1

/* A frame whose IP header is in order, and which has a whole TCP header. */
struct us_tcp_pkt {
	const uint8_t *iph;
	const uint8_t *th;
	uint32_t frame_len;
	uint32_t len;		/* from the TCP header on */
	uint32_t saddr;		/* the peer's address */
	uint32_t daddr;		/* ours */
	uint16_t sport;
	uint16_t dport;
};

/* The text of one frame. */
struct us_tcp_piece {
	const uint8_t *bytes;
	uint32_t len;
};

/* A segment that has passed every check on its headers, or several that GRO makes one. */
struct us_tcp_seg {
	struct us_tcp_sock *tp;
	const uint8_t *payload;
	uint32_t len;
	uint32_t seq;
	uint32_t ack;
	uint32_t window;	/* as in the header */
	uint32_t tsval;
	uint32_t tsecr;
	uint32_t gso_size;
	uint32_t ip_len;
	const uint8_t *iph;
	struct us_igb_rx_buffer *large;	/* as in struct us_igb_rx_frame */
	uint32_t ident_step;	/* 1, or 0 if all have the same IP identification */
	uint32_t nframes;
	struct us_tcp_piece *pieces;	/* room for US_IGB_RX_BUDGET */
	bool psh;
	bool fin;
};

static inline bool us_before(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) < 0;
}

static inline bool us_after(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

static inline uint32_t us_min32(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static inline uint32_t us_max32(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

static inline uint32_t us_get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint32_t us_get16(const uint8_t *p)
{
	return (uint32_t)p[0] << 8 | p[1];
}

static inline void us_put32(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 24);
	p[1] = (uint8_t)(v >> 16);
	p[2] = (uint8_t)(v >> 8);
	p[3] = (uint8_t)v;
}

static inline void us_put16(uint8_t *p, uint32_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

bool us_tcp_dst_can_transmit(const struct us_tcp_fast *fast, const struct us_tcp_dst *dst);
void us_tcp_put_ip(uint8_t *iph, const struct us_tcp_sock *sk, const struct us_tcp_dst *dst,
		   uint32_t saddr, uint32_t daddr, uint32_t tot_len, uint32_t ident);
int us_tcp_ring_frame(struct us_tcp_fast *fast, struct us_xmit_queue *queue, const uint8_t *frame,
		      uint32_t len);
int us_tcp_send_synack(struct us_tcp_fast *fast, struct us_request_sock *req,
		       const struct us_tcp_dst *dst);
bool us_tcp_rcv_listen(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt);
bool us_tcp_check_req(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt,
		      struct us_request_sock *req, const struct us_tcp_offer *offer);

void us_tcp_count_in(struct us_tcp_fast *fast, const struct us_tcp_pkt *pkt);

bool us_tcp_timewait_fin(struct us_tcp_fast *fast, struct us_timewait_sock *tw,
			 const struct us_tcp_seg *seg);
uint64_t us_tcp_repeat_time_us(const struct us_tcp_sock *tp);
void us_tcp_time_wait(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t substate,
		      uint64_t timeout_us);

struct us_tcp_event *us_tcp_event(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what);

bool us_tcp_memory_abounds(const struct us_tcp_fast *fast);

bool us_tcp_has_event(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp, uint32_t what);

bool us_tcp_post(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_fill_inbox(struct us_tcp_fast *fast);

size_t us_tcp_places(const struct us_tcp_fast *fast);
bool us_tcp_to_client(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
int us_tcp_move_out(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd);
int64_t us_tcp_move_in(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, void *scratch,
		       uint32_t size, uint32_t *taken);

uint32_t us_tcp_copy_text(struct us_tcp_fast *fast, struct us_tcp_sock *tp, void *buffer,
			  uint32_t len);
void us_tcp_cleanup_rbuf(struct us_tcp_fast *fast, struct us_tcp_sock *tp);

/* Tell Python that there is something to read, if anybody may wait for it. */
static inline void us_tcp_wake_reader(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				      uint32_t what)
{
	if (!tp->sockopts || tp->told)
		us_tcp_event(fast, tp, what);
}

uint32_t us_tcp_receive_window(const struct us_tcp_sock *tp);
uint64_t us_tcp_space_from_win(const struct us_tcp_sock *tp, uint64_t window);
uint32_t us_tcp_win_of_buffer(const struct us_tcp_sock *tp);
uint32_t us_tcp_new_window(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);
uint32_t us_tcp_select_window(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_update_scaling_ratio(struct us_tcp_sock *tp, uint32_t len);
void us_tcp_grow_window(const struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t len);
void us_tcp_rcv_rtt_update(struct us_tcp_sock *tp, uint64_t sample_us, bool window_based);
void us_tcp_rcv_rtt_measure(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);

void us_tcp_fin(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_data_queue(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
		       const struct us_tcp_seg *seg);
bool us_tcp_acks_now(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);

uint32_t us_tcp_elapsed(const struct us_tcp_fast *fast, uint64_t then);
void us_tcp_ack_update_rtt(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			   uint32_t sample_us, uint32_t newest_us);
void us_tcp_update_pacing_rate(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_sndbuf_expand(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);
/* Whether a connection in this state sends and acknowledges as an open one. */
static inline bool us_tcp_can_send(const struct us_tcp_sock *tp)
{
	return tp->state == US_TCP_ESTABLISHED || tp->state == US_TCP_CLOSE_WAIT;
}

/* tcp_replace_ts_recent, of a segment in order that is not old */
static inline void us_tcp_replace_ts_recent(const struct us_tcp_fast *fast,
					    const struct us_tcp_seg *seg)
{
	struct us_tcp_sock *tp = seg->tp;

	if (tp->tstamp_ok && !us_after(seg->seq, tp->last_ack_sent)) {
		tp->ts_recent = seg->tsval;
		tp->ts_recent_stamp_us = fast->now_us;
	}
}

/* What every call on behalf of an application begins with. */
static inline void us_tcp_begin_call(struct us_tcp_fast *fast, uint64_t now_us, uint32_t genid)
{
	fast->now_us = now_us;
	fast->genid = genid;
	fast->nevents = 0;
}

/* What a call tells Python that it has left it to do now. */
static inline int64_t us_tcp_call_more(const struct us_tcp_fast *fast)
{
	return fast->nevents || (fast->doorbell && !fast->hold) ? US_TCP_CALL_MORE : 0;
}

bool us_tcp_ack_is_plain(const struct us_tcp_seg *seg);
bool us_tcp_ack(struct us_tcp_fast *fast, const struct us_tcp_seg *seg);
void us_tcp_ack_again(struct us_tcp_fast *fast, const struct us_tcp_seg *seg);

bool us_tcp_is_cwnd_limited(const struct us_tcp_sock *tp);
void us_tcp_ca_tx_start(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
bool us_tcp_acked_in_order(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t pkts,
			   int64_t rtt_us);
void us_tcp_arm_rto(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_rearm_rto(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_check_probe_timer(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
bool us_tcp_schedule_loss_probe(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
				bool advancing_rto);

bool us_tcp_may_xmit(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
uint32_t us_tcp_size_goal(const struct us_tcp_sock *tp);
bool us_tcp_write_xmit(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t nonagle);
bool us_tcp_is_writeable(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
void us_tcp_check_space(struct us_tcp_fast *fast, struct us_tcp_sock *tp);

bool us_tcp_close_parked(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
int us_tcp_send_fin(struct us_tcp_fast *fast, struct us_tcp_sock *tp);

void us_tcp_count_segment(struct us_tcp_fast *fast, const struct us_tcp_seg *seg);
bool us_tcp_orphan_rcv(struct us_tcp_fast *fast, const struct us_tcp_seg *seg);

bool us_tcp_has_metrics(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
void us_tcp_update_metrics(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);

void us_tcp_event_ack_sent(struct us_tcp_sock *tp);
int us_tcp_send_ack(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_ack_snd_check(struct us_tcp_fast *fast, struct us_tcp_sock *tp);

/* sk_acceptq_is_full, as far as C knows: Python counts again what was accepted ahead */
static inline bool us_acceptq_is_full(const struct us_tcp_listen *listen)
{
	return listen->accept_len + listen->ahead > listen->max_ack_backlog;
}

#endif
