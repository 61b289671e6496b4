/*
 * Connections joined to the descriptors of clients in other processes: received text goes out
 * to them as it comes, and what they write is sent, without Python. Whatever is no text (an end,
 * an error, a client that does not read, a full send buffer) is left to ustack/daemon/join.py.
 */

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "arena.h"
#include "pair.h"
#include "tcp_internal.h"
#include "tcp_join.h"

#define US_JOINS_AT_LEAST 64

/**
 * us_tcp_joins_create - nobody is joined yet
 * @fast:         fast path, which must live as long
 * @epoll:        watches the clients' descriptors, level triggered, each with its number
 * @scratch_size: the most that is read from one at a time
 *
 * Return: the joins, or NULL for lack of memory.
 */
struct us_tcp_joins *us_tcp_joins_create(struct us_tcp_fast *fast, int epoll, uint32_t scratch_size)
{
	struct us_tcp_joins *joins = calloc(1, sizeof(*joins));

	if (!joins)
		return NULL;
	joins->fast = fast;
	joins->epoll = epoll;
	joins->scratch_size = scratch_size;
	joins->scratch = malloc(scratch_size);
	joins->fds = calloc(us_tcp_places(fast), sizeof(*joins->fds));
	if (!joins->scratch || !joins->fds) {
		us_tcp_joins_destroy(joins);
		return NULL;
	}
	fast->joins = joins;
	return joins;
}

/**
 * us_tcp_joins_destroy - forget all joins; the fast path must still be there
 * @joins: joins, or NULL
 */
void us_tcp_joins_destroy(struct us_tcp_joins *joins)
{
	if (!joins)
		return;
	for (uint32_t fd = 0; fd < joins->njoins; fd++)
		us_tcp_unjoin(joins, (int)fd);
	if (joins->fast->joins == joins)
		joins->fast->joins = NULL;
	free(joins->joins);
	free(joins->fds);
	free(joins->scratch);
	free(joins);
}

/* Have a place for @fd; false: no memory. */
static bool us_tcp_joins_grow(struct us_tcp_joins *joins, uint32_t fd)
{
	uint32_t njoins = joins->njoins ? joins->njoins : US_JOINS_AT_LEAST;
	struct us_tcp_join *grown;

	if (fd < joins->njoins)
		return true;
	while (njoins <= fd)
		njoins *= 2;
	grown = realloc(joins->joins, njoins * sizeof(*grown));
	if (!grown)
		return false;
	for (uint32_t i = joins->njoins; i < njoins; i++)
		grown[i] = (struct us_tcp_join){0};
	joins->joins = grown;
	joins->njoins = njoins;
	return true;
}

/**
 * us_tcp_join - let the text of a connection flow to and from a descriptor
 * @joins:      joins
 * @handle:     of the connection
 * @fd:         our end of a client's pair
 * @is_offered: the client has accepted it once its end has a name
 *
 * What lies in the receive queue already is the caller's to move.
 *
 * Return: 0; -ENOMEM; -ENOENT, the connection is over.
 */
int us_tcp_join(struct us_tcp_joins *joins, uint64_t handle, int fd, int is_offered)
{
	struct us_tcp_sock *tp = us_tcp_sock_at(joins->fast, handle);

	if (!tp)
		return -ENOENT;
	if (!us_tcp_joins_grow(joins, (uint32_t)fd))
		return -ENOMEM;
	joins->joins[fd] = (struct us_tcp_join){ .handle = handle, .is_offered = is_offered != 0 };
	joins->fds[tp->place] = fd;
	tp->joined = 1;
	return 0;
}

/**
 * us_tcp_unjoin - leave a descriptor's bytes to Python from now on
 * @joins: joins
 * @fd:    descriptor, joined or not
 *
 * Return: whether the client has been told that nothing more comes.
 */
int us_tcp_unjoin(struct us_tcp_joins *joins, int fd)
{
	struct us_tcp_sock *tp;

	if ((uint32_t)fd >= joins->njoins || !joins->joins[fd].handle)
		return 0;
	tp = us_tcp_sock_at(joins->fast, joins->joins[fd].handle);
	if (tp)
		tp->joined = 0;
	joins->joins[fd].handle = 0;
	return joins->joins[fd].is_ended;
}

/**
 * us_tcp_join_set_full - a descriptor takes no more, or does again
 * @joins:   joins
 * @fd:      descriptor, joined or not
 * @is_full: text that comes stays in its queue, and nobody is told
 */
void us_tcp_join_set_full(struct us_tcp_joins *joins, int fd, int is_full)
{
	if ((uint32_t)fd < joins->njoins)
		joins->joins[fd].is_full = is_full != 0;
}

/*
 * Give a client the text that has come, and the end behind it; whether there is nothing else that
 * it should know.
 */
bool us_tcp_to_client(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	const int fd = fast->joins->fds[tp->place];
	struct us_tcp_join *join = &fast->joins->joins[fd];

	if (join->is_full)
		return !tp->done;
	if (tp->receive_queue.len && us_tcp_move_out(fast, tp, fd))
		return false;
	if (tp->done && (tp->slow || us_pair_end_stream(fd)))
		return false;
	join->is_ended = tp->done;
	return true;
}

/*
 * Send what a client has written. Returns how much, 0 at its end; -EAGAIN if there is nothing
 * now; else -errno, it is left to Python, and @left says more about it.
 */
static int64_t us_tcp_from_client(struct us_tcp_joins *joins, struct us_tcp_sock *tp, int fd,
				  struct us_join_event *left)
{
	uint32_t taken;
	int64_t got = us_tcp_move_in(joins->fast, tp, fd, joins->scratch, joins->scratch_size, &taken);

	joins->copied += taken;
	if (got > taken) {
		left->start = taken;
		left->end = (uint32_t)got;
		return -ENOMEM;
	}
	if (got < 0 && got != -EAGAIN && got != -EOPNOTSUPP)
		left->error = (int32_t)-got;
	return got;
}

/* The client's socket is closed: so is the connection, unless that is Python's. */
static void us_tcp_hang_up(struct us_tcp_joins *joins, struct us_tcp_sock *tp, int fd,
			   struct us_join_event *left)
{
	int64_t got;

	if (!tp->sockopts || (joins->joins[fd].is_offered && !us_pair_is_taken(fd)))
		return;
	do
		got = us_tcp_from_client(joins, tp, fd, left);
	while (got > 0);
	if (!got && us_tcp_close_parked(joins->fast, tp)) {
		us_tcp_unjoin(joins, fd);
		left->is_closed = 1;
	}
}

/* See to one descriptor; false: there is something for Python to do. */
static bool us_tcp_join_event(struct us_tcp_joins *joins, int fd, struct us_join_event *left)
{
	struct us_tcp_sock *tp;
	int64_t got;

	if ((uint32_t)fd >= joins->njoins || left->events & EPOLLOUT)
		return false;
	tp = us_tcp_sock_at(joins->fast, joins->joins[fd].handle);
	if (!tp)
		return false;
	if (left->events != EPOLLIN) {
		us_tcp_hang_up(joins, tp, fd, left);
		return false;
	}
	got = us_tcp_from_client(joins, tp, fd, left);
	return got > 0 || got == -EAGAIN;
}

/**
 * us_tcp_joins_poll - see to the descriptors that are ready
 * @joins:  joins
 * @now_us: the present
 * @genid:  of the routing table
 *
 * What several clients have written leaves together. joins->left says what Python has to do,
 * and fast->events what for the connections. A text that finds no memory is the last that is
 * read: the scratch space holds what is left of it.
 *
 * Return: descriptors that were ready, and US_JOINS_*; 0: none were.
 */
uint32_t us_tcp_joins_poll(struct us_tcp_joins *joins, uint64_t now_us, uint32_t genid)
{
	struct epoll_event ready[US_JOINS_AT_ONCE];
	const int count = epoll_wait(joins->epoll, ready, US_JOINS_AT_ONCE, 0);
	struct us_tcp_fast *fast = joins->fast;
	const uint64_t copied = joins->copied;
	uint32_t nleft = 0;

	if (count <= 0)
		return 0;
	us_tcp_begin_call(fast, now_us, genid);
	fast->hold = count > 1;
	for (int i = 0; i < count && !(nleft && joins->left[nleft - 1].end); i++) {
		struct us_join_event *left = &joins->left[nleft];
		const int fd = ready[i].data.fd;

		*left = (struct us_join_event){ .fd = fd, .events = ready[i].events };
		if (!us_tcp_join_event(joins, fd, left))
			nleft++;
	}
	fast->hold = 0;
	return (uint32_t)count | nleft << US_JOINS_LEFT_SHIFT |
	       (joins->copied != copied ? US_JOINS_SENT : 0) |
	       (us_tcp_call_more(fast) ? US_JOINS_MORE : 0);
}
