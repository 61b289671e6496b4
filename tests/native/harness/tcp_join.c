/*
 * Connections joined to descriptors, whose clients read, write, stop and go as they like: what
 * each is given is the stream from where it is, byte for byte, what they write is queued once, in
 * order, and what C leaves is said once.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tcp_bed.h"
#include "tcp_join.h"

#define SOCKS 6
#define BATCH 16
#define STEPS 120
#define SCRATCH 4096

struct client {
	struct us_tcp_sock *tp;
	int ours, theirs;	/* -1: gone */
	uint32_t read_seq;	/* what it will read next */
	uint32_t write_seq;	/* and write */
	uint32_t start;		/* where the send queue began */
};

struct model {
	struct tcp_bed bed;
	struct us_tcp_joins *joins;
	int epoll;
	struct client clients[SOCKS];
	us_dma_addr_t pages[BATCH];
	struct us_igb_rx_frame frames[BATCH];
};

static uint8_t pattern(uint32_t seq)
{
	return (uint8_t)(seq * 2654435761U >> 24);
}

static void open_client(struct model *model, uint32_t i)
{
	struct client *client = &model->clients[i];
	struct us_tcp_sock *tp = us_kmem_cache_zalloc(model->bed.tcp);
	struct epoll_event watched = {.events = EPOLLIN};
	struct rng *rng = model->bed.rng;
	int ends[2];

	tp->saddr = TCP_BED_OURS;
	tp->daddr = TCP_BED_THEIRS;
	tp->sport = 80;
	tp->dport = (uint16_t)(40000 + i);
	tp->state = 1;
	tp->rcv_nxt = tp->rcv_wup = tp->copied_seq = tp->last_ack_sent = (uint32_t)rng_next(rng);
	tp->rcv_wnd = tp->rcv_ssthresh = tp->window_clamp = 65536 + rng_below(rng, 200000);
	tp->rcv_wscale = (uint8_t)rng_below(rng, 8);
	tp->sk_rcvbuf = 131072;
	tp->sk_sndbuf = 16384;
	tp->snd_una = tp->snd_nxt = tp->write_seq = (uint32_t)rng_next(rng);
	tp->snd_wnd = tp->max_window = 1 << 16;
	tp->bytes_acked = 1;
	tp->scaling_ratio = 128;
	tp->advmss = tp->ack_rcv_mss = tp->mss_cache = 1448;
	tp->pmtu_mss = 1460;
	tp->rto_us = tp->icsk_rto_min_us = 200000;
	tp->icsk_rto_max_us = 120000000;
	tp->snd_cwnd = 10;
	tp->snd_ssthresh = 0x7fffffff;
	tp->ca_kind = 1;
	tp->dst = &model->bed.dst;
	tp->place = us_tcp_place(model->bed.fast, tp);
	tp->generation = ++model->bed.fast->generation;
	us_tcp_hash(model->bed.fast, tp);
	CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
	client->tp = tp;
	client->ours = ends[0];
	client->theirs = ends[1];
	client->read_seq = tp->copied_seq;
	client->write_seq = client->start = tp->write_seq;
	watched.data.fd = client->ours;
	CHECK(epoll_ctl(model->epoll, EPOLL_CTL_ADD, client->ours, &watched) == 0);
	CHECK(us_tcp_join(model->joins, us_tcp_handle(tp), client->ours, 0) == 0);
	CHECK(tp->joined);
}

static void hang_up(struct client *client)
{
	if (client->theirs >= 0)
		close(client->theirs);
	client->theirs = -1;
}

static void close_client(struct model *model, uint32_t i)
{
	struct client *client = &model->clients[i];

	if (rng_below(model->bed.rng, 3))
		us_tcp_unjoin(model->joins, client->ours);
	tcp_bed_free_sock(&model->bed, client->tp);
	us_tcp_unjoin(model->joins, client->ours);
	hang_up(client);
	close(client->ours);
}

/* The client reads some of what it has, writes some, or goes. */
static void act(struct model *model, struct client *client)
{
	struct rng *rng = model->bed.rng;
	uint8_t bytes[30000];
	ssize_t n;

	if (client->theirs < 0)
		return;
	if (rng_below(rng, 2)) {
		n = recv(client->theirs, bytes, 1 + rng_below(rng, sizeof(bytes)), 0);
		for (ssize_t i = 0; i < n; i++)
			CHECK(bytes[i] == pattern(client->read_seq + (uint32_t)i));
		client->read_seq += n > 0 ? (uint32_t)n : 0;
	}
	if (!rng_below(rng, 3)) {
		const uint32_t len = 1 + rng_below(rng, sizeof(bytes) - 1);

		for (uint32_t i = 0; i < len; i++)
			bytes[i] = pattern(client->write_seq + i);
		n = send(client->theirs, bytes, len, MSG_NOSIGNAL);
		client->write_seq += n > 0 ? (uint32_t)n : 0;
	}
	if (!rng_below(rng, 60))
		shutdown(client->theirs, (int)rng_below(rng, 3));
	if (!rng_below(rng, 150))
		hang_up(client);
}

static uint32_t build(struct model *model, uint8_t *frame, const struct us_tcp_sock *tp,
		      uint32_t seq, uint32_t len)
{
	uint8_t *th = frame + 34;

	memset(th, 0, 20);
	put16(th, tp->dport);
	put16(th + 2, tp->sport);
	put32(th + 4, seq);
	put32(th + 8, rng_below(model->bed.rng, 3) ? tp->snd_nxt : tp->snd_una);
	th[12] = 20 << 2;
	th[13] = (uint8_t)(0x10 | (rng_below(model->bed.rng, 8) ? 0 : 0x08) |
			   (rng_below(model->bed.rng, 80) ? 0 : 0x01));
	put16(th + 14, 65535);
	for (uint32_t i = 0; i < len; i++)
		frame[TCP_BED_HEADERS + i] = pattern(seq + i);
	return tcp_bed_frame(frame, tp->daddr, len, 0);
}

static void receive(struct model *model)
{
	const uint32_t count = 1 + rng_below(model->bed.rng, BATCH);
	struct us_tcp_fast *fast = model->bed.fast;
	uint32_t next[SOCKS];

	for (uint32_t s = 0; s < SOCKS; s++)
		next[s] = model->clients[s].tp->rcv_nxt;
	for (uint32_t i = 0; i < count; i++) {
		const uint32_t s = rng_below(model->bed.rng, SOCKS);
		const uint32_t len = rng_below(model->bed.rng, 1448);
		uint8_t *frame = (uint8_t *)us_mem_base(model->bed.mem) + model->pages[i];

		model->frames[i] = (struct us_igb_rx_frame){ .addr = model->pages[i], .ip_summed = 1 };
		model->frames[i].len = build(model, frame, model->clients[s].tp, next[s], len);
		next[s] += len;
	}
	us_tcp_fast_rx(fast, tcp_bed_mac, model->frames, (int)count);
	CHECK(fast->nevents <= SOCKS);
}

/* What C has taken from clients is what lies in the send queues; the rest it says it has left. */
static void poll_clients(struct model *model)
{
	struct us_tcp_joins *joins = model->joins;
	uint32_t before = 0, after = 0, short_of = 0;
	uint32_t done, nleft;
	uint64_t copied = joins->copied;

	for (uint32_t s = 0; s < SOCKS; s++)
		before += model->clients[s].tp->write_seq;
	if (!rng_below(model->bed.rng, 20))
		us_mem_fail_alloc(model->bed.mem, 4);
	done = us_tcp_joins_poll(joins, model->bed.fast->now_us, model->bed.fast->genid);
	us_mem_fail_alloc(model->bed.mem, 0);
	for (uint32_t s = 0; s < SOCKS; s++)
		after += model->clients[s].tp->write_seq;
	CHECK(after - before == joins->copied - copied);
	CHECK(!(done & US_JOINS_SENT) == (after == before));
	CHECK(!model->bed.fast->hold);
	nleft = done >> US_JOINS_LEFT_SHIFT & 0xff;
	CHECK((done & 0xff) <= SOCKS && nleft <= (done & 0xff));
	for (uint32_t i = 0; i < nleft; i++) {
		const struct us_join_event *left = &joins->left[i];

		CHECK(left->events && left->start <= left->end && left->end <= SCRATCH);
		short_of += left->end - left->start;
		for (uint32_t s = 0; s < SOCKS && left->end; s++) {
			struct client *client = &model->clients[s];

			if (client->ours != left->fd)
				continue;
			for (uint32_t k = left->start; k < left->end; k++)
				CHECK(joins->scratch[k] == pattern(client->tp->write_seq + k - left->start));
			us_tcp_unjoin(joins, client->ours);	/* they have to go first */
		}
	}
	CHECK(!short_of || joins->left[nleft - 1].end);
}

/* The send queue is what the client has written, in order. */
static void check_queue(const struct model *model, const struct client *client)
{
	static uint8_t bytes[1 << 20];
	const struct us_tcp_sock *tp = client->tp;
	const uint32_t len = tp->write_queue.len;

	CHECK(len == tp->write_seq - tp->snd_una && len <= sizeof(bytes));
	CHECK((int32_t)(client->write_seq - tp->write_seq) >= 0);
	us_bq_peek(model->bed.mem, &tp->write_queue, 0, bytes, len);
	for (uint32_t i = 0; i < len; i++)
		CHECK(bytes[i] == pattern(tp->snd_una + i));
	CHECK(tp->copied_seq + tp->receive_queue.len + tp->done == tp->rcv_nxt);
}

HARNESS_TEST(tcp_joins)
{
	struct model *model = calloc(1, sizeof(*model));
	struct us_tcp_event event;

	tcp_bed_open(&model->bed, rng, 16 << 20);
	model->bed.fast->may_xmit = rng_below(rng, 8) != 0;
	model->epoll = epoll_create1(0);
	model->joins = us_tcp_joins_create(model->bed.fast, model->epoll, SCRATCH);
	CHECK(model->joins != NULL);
	for (uint32_t i = 0; i < BATCH; i++)
		model->pages[i] = us_alloc_pages(model->bed.mem, 0);
	for (uint32_t s = 0; s < SOCKS; s++)
		open_client(model, s);
	for (uint32_t i = 0; i < STEPS; i++) {
		const uint32_t s = rng_below(rng, SOCKS);

		receive(model);
		for (uint32_t k = 0; k < SOCKS; k++)
			act(model, &model->clients[k]);
		us_tcp_join_set_full(model->joins, model->clients[s].ours, rng_below(rng, 2) != 0);
		poll_clients(model);
		for (uint32_t k = 0; k < SOCKS; k++)
			check_queue(model, &model->clients[k]);
		model->bed.fast->now_us += rng_below(rng, 100000);
		while (us_tcp_timer_expired(model->bed.fast, &event))
			;
		if (!rng_below(rng, 20)) {
			close_client(model, s);
			open_client(model, s);
		}
		tcp_bed_renew_ring(&model->bed);
	}
	CHECK(model->bed.fast->mib.fast_rx && (model->joins->copied || !model->bed.fast->may_xmit));
	for (uint32_t s = 0; s < SOCKS; s++)
		close_client(model, s);
	us_tcp_joins_destroy(model->joins);
	CHECK(model->bed.fast->joins == NULL);
	close(model->epoll);
	for (uint32_t i = 0; i < BATCH; i++)
		CHECK(us_put_page(model->bed.mem, model->pages[i]) == 0);
	tcp_bed_close(&model->bed);
	free(model);
}
