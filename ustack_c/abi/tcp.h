#ifndef USTACK_ABI_TCP_H
#define USTACK_ABI_TCP_H

#include "bytequeue.h"
#include "timer.h"
#include "txlog.h"

struct us_tcp_dst;
struct us_tcp_listen;

/* What CUBIC remembers of a connection (struct bictcp); see ustack/tcp/cong/cubic.py. */
struct us_bictcp {
	uint64_t epoch_start_us;	/* when the curve began, 0 before it has */
	uint64_t last_jiffy;
	uint32_t last_cwnd;
	uint32_t ack_cnt;
	uint32_t delay_min_us;		/* least RTT, 0: unknown */
	uint32_t last_max_cwnd;		/* W_max of RFC 9438, segments */
	uint32_t bic_origin_point;
	uint32_t bic_k;			/* K, in units of 2**-10 s */
	uint32_t tcp_cwnd;		/* W_est, the window that Reno would have */
	uint32_t found;			/* HyStart has ended slow start */
	uint64_t round_start_us;	/* HyStart's round, a round trip of slow start */
	uint64_t last_ack_us;		/* the last ACK of its train */
	uint32_t end_seq;		/* SND.NXT when it began: acknowledged, the next one begins */
	uint32_t curr_rtt_us;		/* its least RTT */
	uint32_t sample_cnt;
};

/*
 * The TCP control block. Written by C and Python alike; field names are Linux's
 * struct tcp_sock, RFC 9293's variables where it has them. Addresses and ports are
 * in host order, times are int microseconds of stack time. What only some
 * connections need (out-of-order queue, congestion control, socket) hangs off the
 * Python TcpSock.
 */
struct us_tcp_sock {
	/* What every received segment is checked against (RFC 9293 3.10.7.4). */
	uint32_t rcv_nxt;
	uint32_t rcv_wnd;		/* RCV.WND as of the last segment sent, bytes */
	uint32_t rcv_wup;		/* RCV.NXT when the window was last advertised */
	uint32_t snd_una;
	uint32_t snd_nxt;
	uint32_t snd_wnd;		/* SND.WND, scaled, bytes */
	uint32_t snd_wl1;		/* SEG.SEQ of the last window update */
	uint32_t ts_recent;		/* RFC 7323 TS.Recent */
	uint64_t ts_recent_stamp_us;
	uint8_t state;			/* Linux's TCP_ESTABLISHED = 1 ... TCP_CLOSING = 11 */
	uint8_t tstamp_ok;
	uint8_t sack_ok;
	uint8_t wscale_ok;
	uint8_t rcv_wscale;		/* Rcv.Wind.Shift */
	uint8_t snd_wscale;		/* Snd.Wind.Shift */
	uint8_t rcv_shutdown;
	uint8_t snd_shutdown;
	uint32_t copied_seq;		/* head of what the application has not read */
	uint32_t last_ack_sent;		/* RFC 7323 Last.ACK.sent */

	/* Who it is. */
	uint32_t saddr;
	uint32_t daddr;
	uint16_t sport;
	uint16_t dport;
	uint32_t generation;		/* tells this use of its place from the earlier ones */

	/* What a sender needs for each segment. */
	uint32_t write_seq;		/* one past the last byte the application wrote */
	uint32_t snd_cwnd;		/* segments */
	uint32_t snd_cwnd_cnt;
	uint32_t snd_ssthresh;		/* segments */
	uint32_t snd_sml;		/* one past the last small segment sent (Minshall) */
	uint32_t max_window;
	uint32_t prior_ssthresh;
	uint32_t high_seq;		/* SND.NXT when recovery began */
	uint32_t pushed_seq;		/* one past the last byte that goes out with PSH */
	uint32_t packets_out;		/* segments between SND.UNA and SND.NXT */
	uint32_t sacked_out;		/* those that SACKs or duplicate ACKs say have arrived */
	uint32_t lost_out;		/* those that count as lost, repeated or not */
	uint32_t retrans_out;		/* repetitions in flight */
	uint32_t delivered;		/* segments that have arrived so far, repetitions among them */
	uint32_t lost;			/* segments ever marked lost */
	uint32_t max_in_flight;		/* segments in flight, most of the last round */
	uint32_t cwnd_usage_seq;	/* SND.NXT when that round began */
	uint32_t ca_cnt;		/* segments acknowledged that one more of cwnd costs */
	uint32_t prior_cwnd;		/* cwnd before the last reduction, to undo it */
	uint32_t snd_cwnd_used;		/* most in flight while cwnd was not the limit */
	uint8_t ca_state;		/* Open, Disorder, CWR, Recovery, Loss */
	uint8_t is_cwnd_limited;
	uint8_t nonagle;		/* TCP_NAGLE_OFF 1, TCP_NAGLE_CORK 2, TCP_NAGLE_PUSH 4 */
	uint8_t fin_queued;		/* our FIN stands at write_seq - 1 */
	uint8_t retransmits;		/* consecutive timeouts of the same data */
	uint8_t backoff;
	uint8_t probes_out;
	uint8_t rcvbuf_locked;		/* SO_RCVBUF was set: no autotuning */
	uint8_t sndbuf_locked;		/* SO_SNDBUF was set: no autotuning */
	uint8_t nospace : 1;		/* a writer waits for room (SOCK_NOSPACE) */
	uint8_t inbox : 1;		/* received text goes to the inbox, see tcp_fast.h */
	uint8_t joined : 1;		/* received text goes to a client's descriptor, see tcp_join.h */
	uint8_t ca_kind;		/* US_TCP_CA_*: what C knows of its congestion control */
	uint8_t syn_fastopen;		/* TFO_SYN_*: what Fast Open has done, see tcp/fastopen.py */

	/* RTT and RTO, RFC 6298. */
	uint32_t srtt_us;		/* smoothed RTT << 3 */
	uint32_t mdev_us;		/* mean deviation << 2 */
	uint32_t mdev_max_us;
	uint32_t rttvar_us;		/* max of mdev in the last round << 2 */
	uint32_t rtt_seq;		/* round marker of mdev_max_us */
	uint32_t rto_us;
	uint32_t rtt_min_us;		/* least RTT of the last tcp_min_rtt_wlen seconds, 0: none */
	uint32_t rack_rtt_us;		/* RTT of the newest segment delivered (RFC 8985 RACK.rtt) */
	uint32_t icsk_rto_min_us;	/* least variance that counts in the RTO */
	uint32_t tsoffset;		/* added to the clock in TSval */
	uint32_t rcv_ooopack;		/* segments that came out of order */
	uint64_t rtt_min_stamp_us;
	struct us_txlog txlog;		/* what is in flight, while nothing of it is out of order */

	/* Delayed ACK, as struct inet_connection_sock's icsk_ack. */
	uint8_t ecn_flags;		/* TCP_ECN_OK 1, QUEUE_CWR 2, DEMAND_CWR 4, SEEN 8 */
	uint8_t ack_pending;		/* ICSK_ACK_SCHED 1, TIMER 2, PUSHED 4, PUSHED2 8, NOW 16 */
	uint8_t ack_quick;		/* quick ACKs left */
	uint8_t ack_pingpong;
	uint8_t scaling_ratio;		/* part of the receive buffer that is window, of 256 */
	uint8_t icsk_pending;		/* what icsk_timeout_us is for: ICSK_TIME_* */
	uint16_t slow;			/* US_TCP_SLOW_*: why every segment goes to Python */
	uint32_t ack_ato_us;
	uint32_t notsent_lowat;		/* TCP_NOTSENT_LOWAT in bytes, 0: the sysctl */
	uint64_t ack_lrcvtime_us;	/* last data segment in */
	uint64_t lsndtime_us;		/* last data segment out */
	uint64_t snd_cwnd_stamp_us;	/* when cwnd was last found used or reduced */
	uint64_t sk_pacing_rate;	/* bytes per second that cwnd makes, see tcp/pacing.py */
	uint64_t rcv_tstamp_us;		/* last ACK in */
	uint64_t last_oow_ack_us;	/* last ACK of an unacceptable segment (rate limit) */
	uint64_t retrans_stamp_us;	/* when the oldest unacknowledged data was first sent again */
	uint16_t ack_rcv_mss;
	uint16_t ack_last_seg_size;	/* of a segment smaller than rcv_mss, else 0 */
	uint16_t advmss;		/* MSS we advertised */
	uint16_t rx_opt_mss;		/* MSS the peer advertised */
	uint16_t pmtu_mss;		/* what the route's MTU allows */
	uint16_t user_mss;		/* TCP_MAXSEG */
	uint16_t punt_batch;		/* batch in which a segment of it went to Python */
	uint16_t mss_cache;		/* payload bytes of a full segment, options taken off */
	uint16_t inet_id;		/* IP identification of the next packet */
	uint16_t sockopts;		/* number of its options while it has no Python object, or 0 */
	uint8_t tos;			/* IP_TOS, without the bits of ECN */
	uint8_t ttl;			/* IP_TTL, 0: the default */
	uint8_t is_hashed : 1;
	uint8_t done : 1;		/* the peer's FIN has come (SOCK_DONE) */
	uint8_t dead : 1;		/* an orphan without an object */
	uint8_t ends_plainly : 1;	/* without an object: its options leave close() to C */
	uint8_t told : 1;		/* somebody is told of what comes, though it has no object */
	uint8_t event;			/* its place in the present batch's events */
	uint32_t icsk_rto_max_us;

	/* Buffers and their limits. */
	struct us_bq receive_queue;
	struct us_bq write_queue;	/* bytes from SND.UNA on; SYN and FIN are not in it */
	uint32_t sk_rcvbuf;
	uint32_t sk_sndbuf;
	uint32_t rcv_ssthresh;		/* current window clamp */
	uint32_t window_clamp;
	uint32_t rcvq_space;		/* bytes copied to the user in the last RTT */
	uint32_t rcvq_space_seq;
	uint32_t rcv_rtt_us;
	uint32_t rcv_rtt_seq;
	uint32_t rcv_rtt_last_tsecr;
	uint32_t iss;
	uint32_t irs;
	uint32_t icsk_probes_tstamp_ms;	/* since when a closed window is probed, 0: it is not */
	uint32_t total_retrans;
	uint64_t rcvq_space_time_us;
	uint64_t rcv_rtt_time_us;

	/* Timers, see tcp_fast.h: the wheel's is due with the earlier of both times, or before. */
	struct us_timer timer;
	uint64_t icsk_timeout_us;	/* retransmission or probe, 0: not armed */
	uint64_t icsk_ack_timeout_us;	/* delayed ACK, 0: not armed */

	/* Where it hangs: see tcp_fast.h. */
	void *hash_next;
	struct us_tcp_dst *dst;		/* how C may send, NULL: only Python may */
	struct us_bictcp *bictcp;	/* with US_TCP_CA_CUBIC, once there is something to remember */
	uint32_t bind_share;		/* who shares its port by us_bind_share, 0: it has bound it */
	uint32_t place;			/* number of its place in the arena, see us_tcp_place */

	/* What tcp_info shows. */
	uint32_t segs_in;
	uint32_t segs_out;
	uint32_t data_segs_in;
	uint32_t data_segs_out;
	uint64_t bytes_retrans;
	uint64_t bytes_received;
	uint64_t bytes_acked;
	uint64_t bytes_sent;
};

/* Its queues. */
struct us_bq *us_tcp_receive_queue(struct us_tcp_sock *tp);
struct us_bq *us_tcp_write_queue(struct us_tcp_sock *tp);

int us_tcp_tx_push(struct us_mem *mem, struct us_tcp_sock *tp, uint32_t end_seq, uint32_t pcount,
		   uint32_t mss, uint64_t now_us);
uint32_t us_tcp_tx_ack(struct us_mem *mem, struct us_tcp_sock *tp, uint32_t una, uint32_t ack,
		       struct us_tx_acked *out);
uint32_t us_tcp_tx_copy(const struct us_mem *mem, const struct us_tcp_sock *tp,
			struct us_tx_rec *dst, uint32_t max);
void us_tcp_tx_purge(struct us_mem *mem, struct us_tcp_sock *tp);

/* One half-open connection on a listener's SYN queue (struct tcp_request_sock). */
struct us_request_sock {
	uint32_t loc_addr;
	uint32_t rmt_addr;
	uint16_t loc_port;
	uint16_t rmt_port;
	uint32_t rcv_isn;
	uint32_t snt_isn;
	uint32_t rcv_nxt;
	uint32_t snt_tsval_first;	/* TSval of the first SYN-ACK, 0: none is out */
	uint32_t snt_tsval_last;
	uint32_t ts_recent;
	uint32_t rcv_wnd;		/* window of our SYN-ACK */
	uint16_t mss;			/* the peer's MSS option, or 536 */
	uint8_t snd_wscale;
	uint8_t rcv_wscale;
	uint8_t tstamp_ok;
	uint8_t sack_ok;
	uint8_t wscale_ok;
	uint8_t ecn_ok;
	uint8_t num_retrans;		/* SYN-ACKs repeated, for whatever reason */
	uint8_t num_timeout;		/* of those, because the peer was silent */
	uint8_t syn_tos;		/* type of service of the SYN */
	uint8_t acked;			/* third ACK seen, but the child has to wait */
	uint8_t in_table;		/* linux-3.10: the listener's table has it, and its timer */
	uint32_t tsoffset;		/* added to the clock in TSval */
	uint32_t generation;		/* tells its age */
	uint64_t snt_synack_us;		/* when the first SYN-ACK went, 0: it was a cookie */
	uint64_t expires_us;		/* when the SYN-ACK's time is over */
	uint64_t last_oow_ack_us;	/* last ACK of an unacceptable segment (rate limit) */
	struct us_timer timer;
	void *hash_next;
	struct us_tcp_listen *listen;	/* whose SYN queue it is on, NULL: nobody's */
};

/* A closed connection's last minute (struct tcp_timewait_sock). */
struct us_timewait_sock {
	void *hash_next;
	struct us_timer timer;
	struct us_tcp_dst *dst;		/* how C may answer, NULL: only Python may */
	uint64_t ts_recent_stamp_us;
	uint32_t saddr;
	uint32_t daddr;
	uint16_t sport;
	uint16_t dport;
	uint32_t rcv_nxt;
	uint32_t snd_nxt;
	uint32_t rcv_wnd;
	uint32_t ts_recent;
	uint32_t tsoffset;		/* added to the clock in TSval */
	uint32_t bind_share;		/* of its port */
	uint32_t entry_ms;		/* when it became what it is */
	uint32_t last_oow_ack_ms;	/* last ACK of an unacceptable segment, 0: none */
	uint8_t substate;		/* TCP_FIN_WAIT2 or TCP_TIME_WAIT */
	uint8_t tstamp_ok : 1;
	uint8_t has_key : 1;		/* its ACKs are signed */
	uint8_t rcv_wscale;
	uint8_t tos;
};

#endif
