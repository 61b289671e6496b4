#ifndef USTACK_ABI_TCP_FAST_H
#define USTACK_ABI_TCP_FAST_H

#include "igb.h"
#include "nic.h"
#include "tcp.h"

/*
 * TCP's fast path: header prediction for whole batches. A received frame is consumed here
 * if it is exactly what its connection expects, and is Python's otherwise, nothing changed.
 * Policy (when a connection is predictable, how fast cwnd grows) is Python's.
 */

/* us_tcp_sock.slow: why all segments of a connection go to Python. */
#define US_TCP_SLOW_OFO 1	/* something is out of order, or came twice */
#define US_TCP_SLOW_OPTION 2	/* an option that only Python knows: SO_RCVLOWAT */
#define US_TCP_SLOW_URG 4	/* it has seen urgent data */
#define US_TCP_SLOW_TLP 8	/* a tail loss probe is out */
#define US_TCP_SLOW_CA 16	/* its congestion control looks at every ACK */
#define US_TCP_SLOW_PARKED 32	/* it has no Python object, and needs one for what comes */
#define US_TCP_SLOW_PACING 64	/* it is paced */
#define US_TCP_SLOW_ERR 128	/* an ICMP message is remembered until the next ACK */
#define US_TCP_SLOW_MTUP 256	/* it searches its path's MTU */
#define US_TCP_SLOW_RETRACTED 512	/* its window was larger once */

/* us_tcp_sock.ca_kind */
#define US_TCP_CA_PYTHON 0	/* its ACKs in order are Python's, too */
#define US_TCP_CA_RENO 1
#define US_TCP_CA_CUBIC 2

/* us_tcp_event.what */
#define US_TCP_EV_ACKED 1	/* SND.UNA has moved: timers, cwnd, what may go now, ACKs */
#define US_TCP_EV_READABLE 2	/* there is text to read */
#define US_TCP_EV_ACK 4		/* an ACK is to be sent, and C could not */
#define US_TCP_EV_XMIT 32	/* what may go now has to be sent, and what follows from that */
#define US_TCP_EV_SPACE 64	/* there is room for a writer who waits */
#define US_TCP_EV_WRITE_TIMER 8	/* the retransmission or probe timer has expired */
#define US_TCP_EV_DELACK_TIMER 16	/* the delayed ACK's has */
#define US_TCP_EV_FIN 128	/* the peer's FIN has come */
#define US_TCP_EV_ACCEPT 256	/* a listener has children to accept */

#define US_TCP_CALL_MORE 0x100000000	/* events to look at, or a doorbell to ring */

/* What Python has to do for one connection after a batch. */
struct us_tcp_event {
	uint64_t handle;
	uint32_t what;
	uint32_t pkts_acked;	/* segments that the batch's ACKs took off the log */
	uint32_t prior_packets;	/* segments in flight before */
	int64_t rtt_us;		/* the last ACK's, -1: unknown */
};

#define US_TCP_LETTERS 256	/* at most in one turn */

/* Text that was taken out of its receive queue at once: bytes [start, end) of the inbox. */
struct us_tcp_letter {
	uint32_t generation;	/* of the connection */
	uint32_t start;
	uint32_t end;
	uint32_t is_last;	/* the peer's FIN stands behind it */
};

#define US_TCP_SEND_LETTERS 16	/* at most in one call */

/* The transmit queue of a device that C may send through. */
struct us_xmit_queue {
	struct us_igb_tx_ring *ring;	/* NULL while the device is down */
	struct us_nic *nic;	/* whose doorbell C can ring itself, or NULL */
	const struct us_igb_txq_regs *txq;	/* the device's registers for it */
	uint32_t index;		/* of the queue */
	uint32_t can_sum;	/* the device completes checksums */
	uint32_t can_cut;	/* and cuts super-frames */
	uint32_t gso;		/* if it does not, they are cut for it (NETIF_F_GSO) */
	uint32_t qlen;		/* packets that wait in the qdisc: nothing may overtake them */
	uint32_t doorbell;	/* descriptors were filled: write the tail */
	uint64_t packets;	/* segments and bytes since they were last added to the qdisc's */
	uint64_t bytes;
};

/* A neighbour's Ethernet header (struct hh_cache). */
struct us_hh {
	uint64_t confirmed_us;	/* when it last was seen to be there */
	uint8_t usable;		/* the neighbour is there */
	uint8_t header[14];
};

/* What is known about a peer (struct tcp_metrics_block), see ustack/tcp/metrics.py. */
struct us_tcp_metrics {
	uint64_t stamp_us;		/* when it was last added to */
	uint32_t saddr;
	uint32_t daddr;
	uint32_t rtt;			/* << 3, 0: nothing is known */
	uint32_t rttvar;		/* << 2 */
	uint32_t ssthresh;
	uint32_t cwnd;
	uint32_t reordering;
	uint32_t forgotten;		/* the table has it no longer */
};

/* One route as TCP uses it: what stands before every TCP header. */
struct us_tcp_dst {
	struct us_xmit_queue *queue;
	struct us_hh *hh;	/* NULL: the route is not to be used any more */
	uint32_t genid;		/* it holds as long as this is us_tcp_fast.genid */
	uint32_t mtu;
	uint32_t gso_max_size;	/* bytes of the largest packet that the device is given */
	uint32_t saddr;		/* our address */
	uint32_t daddr;		/* the peer's */
	uint8_t ttl;		/* unless the socket has its own */
	uint32_t refs;		/* connections without an object that send by it */
	struct us_tcp_metrics *metrics;	/* of its peer, or NULL */
	uint32_t is_linked;	/* us_tcp_dst_lookup finds it */
	struct us_tcp_dst *next;
};

/* One segment to be sent, @len bytes of the send queue from @seq on. */
struct us_tcp_xmit {
	uint32_t seq;
	uint32_t len;
	uint32_t gso_size;	/* payload of each segment if the device shall cut it, or 0 */
	uint32_t window;	/* as it stands in the header */
	uint8_t flags;
};

/* What C has counted since Python last looked, under Linux's names. */
struct us_tcp_mib {
	uint64_t InReceives;
	uint64_t InOctets;
	uint64_t InDelivers;
	uint64_t OutRequests;
	uint64_t OutTransmits;
	uint64_t OutOctets;
	uint64_t InSegs;
	uint64_t OutSegs;
	uint64_t TCPHPHits;
	uint64_t TCPHPAcks;
	uint64_t TCPPureAcks;
	uint64_t TCPDelivered;
	uint64_t TCPOrigDataSent;
	uint64_t TCPWantZeroWindowAdv;
	uint64_t TCPToZeroWindowAdv;
	uint64_t TCPFromZeroWindowAdv;
	uint64_t DelayedACKs;
	uint64_t BusyPollRxPackets;
	uint64_t TW;
	uint64_t TWKilled;
	uint64_t TCPTimeWaitOverflow;
	uint64_t PassiveOpens;
	int64_t CurrEstab;	/* how much it has changed */
	uint64_t fast_rx;	/* frames that C took */
	uint64_t punted;	/* and that it left */
	uint64_t fast_tx;	/* packets that it sent */
};

/* The connections of one kind on a local port; see ustack/tcp/ports.py. */
struct us_bind_share {
	uint32_t count;
	uint32_t next;		/* on the list of free places, or of emptied counters */
	uint16_t port;
	uint8_t is_emptied;	/* the count was 0 since Python last looked */
};

/* The queues of a listener (struct request_sock_queue). */
struct us_tcp_listen {
	struct us_tcp_sock *tp;		/* whose they are */
	uint32_t max_ack_backlog;	/* what listen() asked for */
	uint32_t qlen;			/* requests on the SYN queue */
	uint32_t young;			/* of those, how many SYN-ACKs have not been repeated */
	uint32_t accept_len;		/* children that wait for accept() */
	uint32_t ahead;			/* accepted ahead of an application, not more than these */
	uint32_t accept_head;
	uint32_t accept_size;
	uint64_t *accept_queue;		/* their handles, a ring */
	uint16_t punt_batch;		/* batch in which a segment for it went to Python */
};

/* A connection that accept() returns. */
struct us_tcp_accepted {
	uint64_t handle;
	uint32_t saddr;
	uint32_t daddr;
	uint16_t sport;
	uint16_t dport;
	uint32_t is_left;	/* there is something about it to be asked for */
};

/* How C makes a listener's children at one of our addresses: there is nothing to ask Python. */
struct us_tcp_offer {
	struct us_tcp_sock child;	/* one that Python has made */
	struct us_tcp_listen *listen;
	struct us_tcp_offer *next;
};

#define US_TCP_DST_BUCKETS 1024
#define US_TCP_OFFER_BUCKETS 256

struct us_flow_table;
struct us_tcp_joins;

/* The fast path of one stack. */
struct us_tcp_fast {
	struct us_mem *mem;
	struct us_flow_table *ehash;
	struct us_timer_wheel *wheel;
	struct us_kmem_cache *tcp_cache;
	struct us_kmem_cache *bictcp_cache;
	struct us_kmem_cache *tw_cache;
	struct us_flow_table *timewaits;
	struct us_timer_wheel *tw_timers;
	struct us_kmem_cache *request_cache;
	struct us_flow_table *requests;	/* on all SYN queues */
	struct us_timer_wheel *reqsk_timers;
	struct us_bind_share *shares;
	uint32_t nshares;
	uint32_t free_shares;
	uint32_t emptied_shares;
	uint64_t now_us;
	uint32_t on;		/* C may receive and send now */
	uint32_t may_xmit;	/* ... and decide what to send */
	uint32_t early_retrans;	/* tail loss probes are sent */
	uint32_t pacing_ss_ratio;	/* net.ipv4.tcp_pacing_ss_ratio */
	uint32_t pacing_ca_ratio;	/* net.ipv4.tcp_pacing_ca_ratio */
	uint32_t tso_rtt_log;	/* net.ipv4.tcp_tso_rtt_log */
	uint32_t min_tso_segs;	/* net.ipv4.tcp_min_tso_segs */
	uint32_t tso_win_divisor;	/* net.ipv4.tcp_tso_win_divisor */
	uint32_t notsent_lowat;	/* net.ipv4.tcp_notsent_lowat */
	uint32_t limit_output_bytes;	/* net.ipv4.tcp_limit_output_bytes */
	uint32_t wmem_max;	/* net.ipv4.tcp_wmem[2] */
	uint32_t moderate_rcvbuf;	/* net.ipv4.tcp_moderate_rcvbuf */
	uint32_t rmem_max;	/* net.ipv4.tcp_rmem[2] */
	uint32_t pingpong_thresh;	/* net.ipv4.tcp_pingpong_thresh */
	uint32_t slow_start_after_idle;	/* net.ipv4.tcp_slow_start_after_idle */
	uint32_t timestamps;	/* net.ipv4.tcp_timestamps */
	uint32_t sack;		/* net.ipv4.tcp_sack */
	uint32_t window_scaling;	/* net.ipv4.tcp_window_scaling */
	uint32_t syncookies;	/* net.ipv4.tcp_syncookies */
	uint32_t max_syn_backlog;	/* net.ipv4.tcp_max_syn_backlog */
	uint32_t min_snd_mss;	/* net.ipv4.tcp_min_snd_mss */
	uint32_t app_win;	/* net.ipv4.tcp_app_win */
	uint32_t reordering;	/* net.ipv4.tcp_reordering */
	uint32_t init_cwnd;	/* segments */
	uint32_t mem_limits[3];	/* net.ipv4.tcp_mem, pages */
	uint32_t memory_pressure;	/* TCP holds too much of the arena */
	uint32_t ofo_pages;	/* what out-of-order queues hold, which are Python's */
	uint64_t min_rtt_wlen_us;	/* net.ipv4.tcp_min_rtt_wlen */
	uint32_t orphans;	/* connections that no application holds any more */
	uint32_t max_orphans;	/* net.ipv4.tcp_max_orphans */
	uint32_t max_tw_buckets;	/* net.ipv4.tcp_max_tw_buckets */
	uint64_t fin_timeout_us;	/* net.ipv4.tcp_fin_timeout */
	uint32_t no_metrics_save;	/* net.ipv4.tcp_no_metrics_save */
	uint32_t no_ssthresh_metrics_save;	/* net.ipv4.tcp_no_ssthresh_metrics_save */
	uint32_t genid;		/* of the routing table */
	uint32_t generation;	/* the last that a connection or a request got */
	uint32_t gro;		/* the receiving device's GRO is on */
	uint32_t hold;		/* more will follow in a moment: doorbells wait for it */
	uint32_t doorbell;	/* some queue has filled descriptors that its device knows not of */
	uint32_t batch;
	uint32_t tw_punt_batch;	/* batch in which a segment for a mini-socket went to Python */
	uint32_t nevents;
	struct us_tcp_event events[128];	/* a frame's connection, and its listener */
	uint8_t *inbox;		/* the text of letters; NULL: there are none */
	uint32_t inbox_size;
	uint32_t nletters;	/* until Python has read them */
	struct us_tcp_letter letters[US_TCP_LETTERS];
	struct us_tcp_joins *joins;	/* whose text goes to clients' descriptors; NULL: nobody's */
	struct us_tcp_mib mib;
	uint8_t secret[16];	/* of initial sequence numbers and the like */
	struct us_tcp_dst *dsts[US_TCP_DST_BUCKETS];
	struct us_tcp_offer *offers[US_TCP_OFFER_BUCKETS];
};

struct us_tcp_fast *us_tcp_fast_create(struct us_mem *mem, const uint8_t *key16);
void us_tcp_fast_destroy(struct us_tcp_fast *fast);

/* Connections by four-tuple, from the SYN on. */
void us_tcp_hash(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
void us_tcp_unhash(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
uint64_t us_tcp_lookup(const struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport,
		       uint32_t daddr, uint16_t dport);
uint32_t us_tcp_hashed(const struct us_tcp_fast *fast);
uint32_t us_tcp_list(const struct us_tcp_fast *fast, uint64_t *handles, uint32_t max);

/* Pages that all connections' data occupies (tcp_memory_allocated). */
uint32_t us_tcp_memory_allocated(const struct us_tcp_fast *fast);
int us_tcp_memory_is_low(const struct us_tcp_fast *fast, uint32_t more);

/* A control block's place in the arena, and with its generation above that its handle: never 0,
 * and nobody's when the block has been given back, whoever has the place then. */
uint32_t us_tcp_place(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
uint64_t us_tcp_handle(const struct us_tcp_sock *tp);
struct us_tcp_sock *us_tcp_sock_at(const struct us_tcp_fast *fast, uint64_t handle);

/* Who shares a port: connections take a share when they come and give it back when they go. */
uint32_t us_bind_share_alloc(struct us_tcp_fast *fast, uint16_t port);
void us_bind_share_free(struct us_tcp_fast *fast, uint32_t index);
void us_bind_share_get(struct us_tcp_fast *fast, uint32_t index);
void us_bind_share_put(struct us_tcp_fast *fast, uint32_t index);
uint32_t us_bind_share_emptied(struct us_tcp_fast *fast);

/* Routes by both addresses, those that a connection may begin with. */
void us_tcp_dst_link(struct us_tcp_fast *fast, struct us_tcp_dst *dst);
void us_tcp_dst_unlink(struct us_tcp_fast *fast, struct us_tcp_dst *dst);
struct us_tcp_dst *us_tcp_dst_lookup(struct us_tcp_fast *fast, uint32_t saddr, uint32_t daddr);

/* Listeners and half-open connections. */
struct us_tcp_offer *us_tcp_offer_lookup(struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport);
void us_tcp_offer_add(struct us_tcp_fast *fast, struct us_tcp_offer *offer);
void us_tcp_offer_remove(struct us_tcp_fast *fast, struct us_tcp_offer *offer);
struct us_tcp_listen *us_tcp_listen_create(struct us_tcp_sock *tp);
void us_tcp_listen_destroy(struct us_tcp_listen *listen);
int us_acceptq_add(struct us_tcp_listen *listen, uint64_t handle);
uint64_t us_acceptq_remove(struct us_tcp_listen *listen);
uint64_t us_acceptq_at(const struct us_tcp_listen *listen, uint32_t index);
uint32_t us_tcp_accept(struct us_tcp_fast *fast, struct us_tcp_listen *listen,
		       struct us_tcp_accepted *out, uint32_t max, uint32_t letters, uint64_t now_us,
		       uint32_t genid);
void us_reqsk_queue_add(struct us_tcp_fast *fast, struct us_tcp_listen *listen,
			struct us_request_sock *req);
void us_reqsk_queue_remove(struct us_tcp_fast *fast, struct us_request_sock *req);
struct us_request_sock *us_reqsk_lookup(const struct us_tcp_fast *fast, uint32_t saddr,
					uint16_t sport, uint32_t daddr, uint16_t dport);
uint32_t us_reqsk_list(const struct us_tcp_fast *fast, const struct us_tcp_listen *listen,
		       struct us_request_sock **out, uint32_t max);
void us_reqsk_rearm(struct us_tcp_fast *fast, struct us_request_sock *req);
struct us_request_sock *us_reqsk_expired(struct us_tcp_fast *fast);

/* Mini-sockets. */
struct us_timewait_sock *us_twsk_alloc(struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport,
				       uint32_t daddr, uint16_t dport);
struct us_timewait_sock *us_twsk_lookup(const struct us_tcp_fast *fast, uint32_t saddr,
					uint16_t sport, uint32_t daddr, uint16_t dport);
uint32_t us_twsk_count(const struct us_tcp_fast *fast);
uint32_t us_twsk_list(const struct us_tcp_fast *fast, struct us_timewait_sock **out, uint32_t max);
void us_twsk_schedule(struct us_tcp_fast *fast, struct us_timewait_sock *tw, uint64_t expires_us);
void us_twsk_kill(struct us_tcp_fast *fast, struct us_timewait_sock *tw);
uint32_t us_twsk_expire(struct us_tcp_fast *fast, uint32_t max);

/* A connection's timers. Arming is O(1); one that moves on is only noted and found again later. */
void us_tcp_reset_xmit_timer(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what,
			     uint64_t expires_us);
void us_tcp_clear_xmit_timer(struct us_tcp_sock *tp);
void us_tcp_reset_delack(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint64_t expires_us);
void us_tcp_forget_timers(struct us_tcp_fast *fast, struct us_tcp_sock *tp);
uint64_t us_tcp_next_timer_us(struct us_tcp_fast *fast);
int us_tcp_timers_due(struct us_tcp_fast *fast, uint64_t now_us);
int us_tcp_timer_expired(struct us_tcp_fast *fast, struct us_tcp_event *event);

/* Whether us_tcp_transmit could send now. */
int us_tcp_can_transmit(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp);
int us_tcp_transmit(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
		    const struct us_tcp_xmit *xmit);

/* send() and recv() in the usual case; US_TCP_CALL_MORE is in what they return. */
int64_t us_tcp_sendmsg(struct us_tcp_fast *fast, struct us_tcp_sock *tp, const void *data,
		       uint32_t len, uint64_t now_us, uint32_t genid);
int64_t us_tcp_sendmsg_ref(struct us_tcp_fast *fast, struct us_tcp_sock *tp, us_dma_addr_t addr,
			   uint32_t len, uint64_t now_us, uint32_t genid);
uint64_t us_tcp_send_letters(struct us_tcp_fast *fast, const void *letters, uint32_t count,
			     const void *texts, uint32_t len, uint64_t now_us, uint32_t genid);
int64_t us_tcp_recvmsg(struct us_tcp_fast *fast, struct us_tcp_sock *tp, void *buffer,
		       uint32_t len, uint64_t now_us, uint32_t genid);

/* The same for who has the handle alone. */
int64_t us_tcp_sendmsg_at(struct us_tcp_fast *fast, uint64_t handle, const void *data, uint32_t len,
			  uint64_t now_us, uint32_t genid);
int64_t us_tcp_close_at(struct us_tcp_fast *fast, uint64_t handle, uint64_t now_us, uint32_t genid);

/* The same between a connection and a client's descriptor. */
int64_t us_tcp_splice_write(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, void *scratch,
			    uint32_t size, uint64_t now_us, uint32_t genid, uint32_t *taken);
int us_tcp_splice_read(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, uint64_t now_us,
		       uint32_t genid);

int us_tcp_poll(const struct us_tcp_fast *fast, struct us_tcp_sock *tp);

/* close() in the usual case. */
int us_tcp_close(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint64_t now_us, uint32_t genid,
		 uint32_t sockopts);

int us_tcp_fast_rx(struct us_tcp_fast *fast, const uint8_t *mac, struct us_igb_rx_frame *frames,
		   int count);

#endif
