/*
 * send() and recv() of a connection that nothing is out of the ordinary with (tcp_sendmsg and
 * tcp_recvmsg in ustack/tcp): one copy, and what follows from it, in one call.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "arena.h"
#include "splice.h"
#include "tcp_internal.h"

#define US_TCP_NAGLE_PUSH 4
#define US_TCP_EV_TEXT ((uint32_t)(US_TCP_EV_READABLE | US_TCP_EV_FIN))

/* sk_stream_room: bytes that a write may add now, packets of @goal bytes until it is full */
static int64_t us_tcp_stream_room(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp,
				  uint32_t goal)
{
	const int64_t lowat = tp->notsent_lowat ? tp->notsent_lowat : fast->notsent_lowat;
	const int64_t unsent = tp->write_seq - tp->snd_nxt;
	const int64_t tail = unsent % goal;
	int64_t left = (int64_t)tp->sk_sndbuf - tp->write_queue.len;
	int64_t room = 0;

	if (lowat - unsent < left)
		left = lowat - unsent;
	if (tail)
		room = goal - tail < goal + left ? goal - tail : goal + left;
	if (room < 0)
		room = 0;
	if (left > room)
		room += (left - room + goal - 1) / goal * goal;
	return room;
}

/* What is to be sent: bytes to copy, or a mapping that is referred to (us_dma_map). */
struct us_tcp_source {
	const uint8_t *bytes;	/* or NULL */
	us_dma_addr_t addr;
};

static uint32_t us_tcp_refer(struct us_mem *mem, struct us_tcp_sock *tp, us_dma_addr_t addr,
			     uint32_t len)
{
	if (us_get_page(mem, addr))
		return 0;
	if (!us_bq_append_ref(mem, &tp->write_queue, addr, len))
		return len;
	us_put_page(mem, addr);
	return 0;
}

static uint32_t us_tcp_append(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			      const struct us_tcp_source *from, uint32_t at, uint32_t len,
			      uint32_t goal)
{
	uint32_t taken;

	if (tp->nonagle & US_TCP_NAGLE_PUSH) {
		const uint32_t tail = (tp->write_seq - tp->snd_nxt) % goal;

		if (!tail || len > goal - tail)
			tp->nonagle &= (uint8_t)~US_TCP_NAGLE_PUSH;
	}
	if (from->bytes)
		taken = us_bq_append(fast->mem, &tp->write_queue, from->bytes + at, len);
	else
		taken = us_tcp_refer(fast->mem, tp, from->addr + at, len);
	tp->write_seq += taken;
	return taken;
}

/* tcp_push; false: Python has to go on */
static bool us_tcp_push(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t nonagle)
{
	tp->pushed_seq = tp->write_seq;
	if (us_tcp_write_xmit(fast, tp, nonagle))
		return true;
	us_tcp_event(fast, tp, US_TCP_EV_XMIT);
	return false;
}

/* Queue bytes and send what may go; how many, or why none, as us_tcp_sendmsg. */
static int64_t us_tcp_send(struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			   const struct us_tcp_source *from, uint32_t len)
{
	uint32_t taken = 0;
	uint32_t goal;

	if (!len || tp->snd_shutdown || !us_tcp_may_xmit(fast, tp))
		return -EOPNOTSUPP;
	goal = us_tcp_size_goal(tp);
	while (taken < len) {
		const int64_t room = us_tcp_stream_room(fast, tp, goal);
		const uint32_t want = room < len - taken ? (uint32_t)room : len - taken;
		uint32_t n;

		if (room <= 0)
			break;
		n = us_tcp_append(fast, tp, from, taken, want, goal);
		taken += n;
		if (n < want || taken == len)
			break;
		if (!us_tcp_push(fast, tp, US_TCP_NAGLE_PUSH)) {
			tp->nospace = 1;
			return taken;
		}
	}
	if (taken == len) {
		us_tcp_push(fast, tp, tp->nonagle);
		return taken;
	}
	tp->nospace = 1;
	if (!taken)
		return -EAGAIN;
	us_tcp_push(fast, tp, US_TCP_NAGLE_PUSH);
	return taken;
}

/**
 * us_tcp_sendmsg - queue bytes and send what may go (tcp_sendmsg)
 * @fast:   fast path
 * @tp:     connection
 * @data:   bytes
 * @len:    how many
 * @now_us: the present
 * @genid:  of the routing table
 *
 * Return: bytes taken, with US_TCP_CALL_MORE if Python has something to do now; -EAGAIN no room
 * now, and a writer waits; -EOPNOTSUPP, and nothing has changed: the way through Python.
 */
int64_t us_tcp_sendmsg(struct us_tcp_fast *fast, struct us_tcp_sock *tp, const void *data,
		       uint32_t len, uint64_t now_us, uint32_t genid)
{
	const struct us_tcp_source from = {.bytes = data};
	int64_t taken;

	us_tcp_begin_call(fast, now_us, genid);
	taken = us_tcp_send(fast, tp, &from, len);
	return taken > 0 ? taken | us_tcp_call_more(fast) : taken;
}

/**
 * us_tcp_sendmsg_ref - us_tcp_sendmsg of bytes that are sent from where they lie
 * @fast:   fast path
 * @tp:     connection
 * @addr:   of a mapping (us_dma_map); the caller's reference is given back
 * @len:    bytes of it
 * @now_us: the present
 * @genid:  of the routing table
 *
 * Return: as us_tcp_sendmsg.
 */
int64_t us_tcp_sendmsg_ref(struct us_tcp_fast *fast, struct us_tcp_sock *tp, us_dma_addr_t addr,
			   uint32_t len, uint64_t now_us, uint32_t genid)
{
	const struct us_tcp_source from = {.addr = addr};
	int64_t taken;

	us_tcp_begin_call(fast, now_us, genid);
	taken = us_tcp_send(fast, tp, &from, len);
	us_put_page(fast->mem, addr);
	return taken > 0 ? taken | us_tcp_call_more(fast) : taken;
}

/**
 * us_tcp_sendmsg_at - us_tcp_sendmsg for a connection without an object
 * @fast:   fast path
 * @handle: of the connection
 * @data:   bytes
 * @len:    how many
 * @now_us: the present
 * @genid:  of the routing table
 *
 * Return: as us_tcp_sendmsg.
 */
int64_t us_tcp_sendmsg_at(struct us_tcp_fast *fast, uint64_t handle, const void *data, uint32_t len,
			  uint64_t now_us, uint32_t genid)
{
	struct us_tcp_sock *tp = us_tcp_sock_at(fast, handle);

	return tp ? us_tcp_sendmsg(fast, tp, data, len, now_us, genid) : -EOPNOTSUPP;
}

/**
 * us_tcp_send_letters - us_tcp_sendmsg for several short texts
 * @fast:    fast path
 * @letters: @count handles, 64 bits each, then as many lengths of 32 bits
 * @count:   how many, US_TCP_SEND_LETTERS at most
 * @texts:   all of the text
 * @len:     its length
 * @now_us:  the present
 * @genid:   of the routing table
 *
 * It ends with the first text that is not taken whole. fast->events says afterwards what Python
 * has to do for the connections.
 *
 * Return: letters that were; and above those 32 bits the bytes of the next that were taken.
 */
uint64_t us_tcp_send_letters(struct us_tcp_fast *fast, const void *letters, uint32_t count,
			     const void *texts, uint32_t len, uint64_t now_us, uint32_t genid)
{
	const uint8_t *handles = letters;
	const uint8_t *lens = handles + count * sizeof(uint64_t);
	const uint8_t *text = texts;

	us_tcp_begin_call(fast, now_us, genid);
	for (uint32_t i = 0; i < count; i++) {
		const struct us_tcp_source from = {.bytes = text};
		struct us_tcp_sock *tp;
		uint64_t handle;
		uint32_t want;
		int64_t taken;

		memcpy(&handle, handles + i * sizeof(handle), sizeof(handle));
		memcpy(&want, lens + i * sizeof(want), sizeof(want));
		tp = us_tcp_sock_at(fast, handle);
		if (!tp || want > len || i == US_TCP_SEND_LETTERS)
			return i;
		taken = us_tcp_send(fast, tp, &from, want);
		if (taken != want)
			return i | (uint64_t)(taken > 0 ? taken : 0) << 32;
		text += want;
		len -= want;
	}
	return count;
}

/*
 * Send what a client has written to the descriptor at the other end of @fd, all of it or the
 * @size bytes that @scratch has room for; *@taken are queued, and the others lie in @scratch.
 * Returns bytes read, or as us_tcp_splice_write.
 */
int64_t us_tcp_move_in(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, void *scratch,
		       uint32_t size, uint32_t *taken)
{
	const struct us_tcp_source from = {.bytes = scratch};
	uint32_t goal;
	int64_t room;
	ssize_t got;

	*taken = 0;
	if (tp->snd_shutdown || !us_tcp_may_xmit(fast, tp))
		return -EOPNOTSUPP;
	goal = us_tcp_size_goal(tp);
	room = us_tcp_stream_room(fast, tp, goal);
	if (room <= 0)
		return -EOPNOTSUPP;
	got = recv(fd, scratch, room < size ? (size_t)room : size, MSG_DONTWAIT);
	if (got <= 0)
		return got ? -errno : 0;
	*taken = us_tcp_append(fast, tp, &from, 0, (uint32_t)got, goal);
	if (*taken < got)
		tp->nospace = 1;
	us_tcp_push(fast, tp, *taken < got ? US_TCP_NAGLE_PUSH : tp->nonagle);
	return got;
}

/**
 * us_tcp_splice_write - send what a client has written to its descriptor
 * @fast:    fast path
 * @tp:      connection
 * @fd:      our end of the client's pair; the call does not wait for it
 * @scratch: room for @size bytes
 * @size:    how many at most
 * @now_us:  the present
 * @genid:   of the routing table
 * @taken:   how many are queued: all, unless the arena is full; the others lie in @scratch
 *
 * fast->events says afterwards what Python has to do for the connection.
 *
 * Return: bytes read from @fd, 0 at their end, -errno if it gives none now; -EOPNOTSUPP, and
 * nothing has changed: there is no room, or the way is through Python.
 */
int64_t us_tcp_splice_write(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, void *scratch,
			    uint32_t size, uint64_t now_us, uint32_t genid, uint32_t *taken)
{
	us_tcp_begin_call(fast, now_us, genid);
	return us_tcp_move_in(fast, tp, fd, scratch, size, taken);
}

/* tcp_rcvbuf_grow */
static void us_tcp_rcvbuf_grow(const struct us_tcp_fast *fast, struct us_tcp_sock *tp,
			       uint32_t copied)
{
	const uint64_t old = tp->rcvq_space;
	uint64_t window = (uint64_t)copied << 1;
	uint64_t rcvbuf;

	tp->rcvq_space = copied;
	if (!fast->moderate_rcvbuf || tp->rcvbuf_locked)
		return;
	if (old)
		window += window * (copied - old) / old << 1;
	rcvbuf = us_tcp_space_from_win(tp, window);
	if (rcvbuf > fast->rmem_max)
		rcvbuf = fast->rmem_max;
	if (rcvbuf > tp->sk_rcvbuf) {
		tp->sk_rcvbuf = (uint32_t)rcvbuf;
		tp->window_clamp = us_tcp_win_of_buffer(tp);
	}
}

/* tcp_rcv_space_adjust: once per round trip, what has the application read since? */
static void us_tcp_rcv_space_adjust(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	int64_t copied;

	if (!tp->rcv_rtt_us || fast->now_us - tp->rcvq_space_time_us < tp->rcv_rtt_us >> 3)
		return;
	copied = (int32_t)(tp->copied_seq - tp->rcvq_space_seq);
	copied -= (int32_t)(tp->rcv_nxt - tp->copied_seq);
	if (copied > (int64_t)tp->rcvq_space)
		us_tcp_rcvbuf_grow(fast, tp, (uint32_t)copied);
	tp->rcvq_space_seq = tp->copied_seq;
	tp->rcvq_space_time_us = fast->now_us;
}

/* Whether reading has made an ACK worth sending (tcp_cleanup_rbuf). */
static bool us_tcp_read_makes_ack(const struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const uint8_t pending = tp->ack_pending;
	uint32_t window, offer;

	if (pending & US_ACK_SCHED) {
		const bool pushed = pending & US_ACK_PUSHED2 ||
				    (pending & US_ACK_PUSHED &&
				     tp->ack_pingpong < fast->pingpong_thresh);

		if (tp->rcv_nxt - tp->rcv_wup > tp->ack_rcv_mss ||
		    (pushed && !tp->receive_queue.len))
			return true;
	}
	if (tp->rcv_shutdown)
		return false;
	window = us_tcp_receive_window(tp);
	if (2ULL * window > tp->window_clamp)
		return false;
	offer = us_tcp_new_window(fast, tp);
	return offer && offer >= 2 * window;
}

/* Whether the receive queue may be read here: nothing but its length is to be looked at. */
static bool us_tcp_may_read(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	return tp->receive_queue.len && fast->on && fast->may_xmit && !fast->memory_pressure &&
	       !tp->slow && us_tcp_can_send(tp) && !(tp->ack_pending & US_ACK_NOMEM);
}

/* Copy text out; 0: there is none, or it is not to be read here. us_tcp_cleanup_rbuf follows. */
uint32_t us_tcp_copy_text(struct us_tcp_fast *fast, struct us_tcp_sock *tp, void *buffer,
			  uint32_t len)
{
	if (!us_tcp_may_read(fast, tp))
		return 0;
	len = us_bq_read(fast->mem, &tp->receive_queue, buffer, len);
	tp->copied_seq += len;
	return len;
}

/* Text has been read: what follows for the buffer and the window. */
void us_tcp_cleanup_rbuf(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_rcv_space_adjust(fast, tp);
	if (us_tcp_read_makes_ack(fast, tp) && us_tcp_send_ack(fast, tp))
		us_tcp_event(fast, tp, US_TCP_EV_ACK);
}

static uint32_t us_tcp_read(struct us_tcp_fast *fast, struct us_tcp_sock *tp, void *buffer,
			    uint32_t len)
{
	len = us_tcp_copy_text(fast, tp, buffer, len);
	if (len)
		us_tcp_cleanup_rbuf(fast, tp);
	return len;
}

/**
 * us_tcp_recvmsg - take bytes out of the receive queue (tcp_recvmsg)
 * @fast:   fast path
 * @tp:     connection
 * @buffer: room for @len bytes
 * @len:    how many at most
 * @now_us: the present
 * @genid:  of the routing table
 *
 * Return: bytes read, with US_TCP_CALL_MORE if Python has something to do now; 0, and nothing
 * has changed: the way through Python.
 */
int64_t us_tcp_recvmsg(struct us_tcp_fast *fast, struct us_tcp_sock *tp, void *buffer,
		       uint32_t len, uint64_t now_us, uint32_t genid)
{
	int64_t got;

	us_tcp_begin_call(fast, now_us, genid);
	got = us_tcp_read(fast, tp, buffer, len);
	return got ? got | us_tcp_call_more(fast) : 0;
}

/* Give the client at the other end of @fd all that has arrived; what us_tcp_splice_read returns. */
int us_tcp_move_out(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd)
{
	struct us_bq *queue = &tp->receive_queue;
	const uint32_t before = queue->len;
	int64_t moved = 0;

	if (!us_tcp_may_read(fast, tp))
		return -EOPNOTSUPP;
	while (queue->len && moved >= 0)
		moved = us_bq_splice_out(fast->mem, queue, fd, queue->len);
	if (queue->len < before) {
		tp->copied_seq += before - queue->len;
		us_tcp_cleanup_rbuf(fast, tp);
	}
	return moved < 0 ? (int)moved : 0;
}

/**
 * us_tcp_splice_read - give a client all that has arrived
 * @fast:   fast path
 * @tp:     connection
 * @fd:     our end of the client's pair; the call does not wait for it
 * @now_us: the present
 * @genid:  of the routing table
 *
 * fast->events says afterwards what Python has to do for the connection.
 *
 * Return: 0, the receive queue is empty now; -EOPNOTSUPP, and nothing has changed: the way
 * through Python; -errno of @fd that does not take them all.
 */
int us_tcp_splice_read(struct us_tcp_fast *fast, struct us_tcp_sock *tp, int fd, uint64_t now_us,
		       uint32_t genid)
{
	us_tcp_begin_call(fast, now_us, genid);
	return us_tcp_move_out(fast, tp, fd);
}

/*
 * Put the text of a connection into the inbox, and that there will be no more if its FIN has come;
 * whether all of that has gone there.
 */
bool us_tcp_post(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	struct us_tcp_letter *letter = &fast->letters[fast->nletters];
	const uint32_t start = fast->nletters ? letter[-1].end : 0;

	if (!tp->inbox || !fast->inbox || fast->nletters == US_TCP_LETTERS || tp->slow || !fast->on)
		return false;
	if (tp->receive_queue.len && (!us_tcp_may_read(fast, tp) || start == fast->inbox_size))
		return false;
	letter->generation = tp->generation;
	letter->start = letter->end = start;
	if (tp->receive_queue.len)
		letter->end += us_tcp_read(fast, tp, fast->inbox + start, fast->inbox_size - start);
	letter->is_last = tp->done && !tp->receive_queue.len;
	if (letter->is_last)
		tp->copied_seq = tp->rcv_nxt;
	fast->nletters++;
	return !tp->receive_queue.len;
}

/*
 * Hand text over, and its end, whose readers wait for nothing else, instead of the event;
 * what finds no place stays in its queue. Clients' text goes to their descriptors.
 */
void us_tcp_fill_inbox(struct us_tcp_fast *fast)
{
	uint32_t left = 0;

	for (uint32_t i = 0; i < fast->nevents; i++) {
		struct us_tcp_event *event = &fast->events[i];
		struct us_tcp_sock *tp = us_tcp_sock_at(fast, event->handle);

		if (!(event->what & ~US_TCP_EV_TEXT) && tp &&
		    (tp->joined ? us_tcp_to_client(fast, tp) : us_tcp_post(fast, tp)))
			event->what &= ~US_TCP_EV_TEXT;
		if (event->what)
			fast->events[left++] = *event;
	}
	fast->nevents = left;
}
