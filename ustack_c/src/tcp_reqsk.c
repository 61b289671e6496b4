/*
 * A listener's two queues (struct request_sock_queue): the requests of all listeners by
 * four-tuple, with the timers of their SYN-ACKs, and for each listener the children that wait
 * for accept(). What a queue may hold, and what an expired timer means, is Python's.
 */

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#include "tcp_internal.h"

#define US_ACCEPTQ_FIRST 16

/**
 * us_tcp_listen_create - the queues of a listener
 * @tp: its control block
 *
 * Return: the queues, both empty, or NULL for lack of memory.
 */
struct us_tcp_listen *us_tcp_listen_create(struct us_tcp_sock *tp)
{
	struct us_tcp_listen *listen = calloc(1, sizeof(*listen));

	if (listen)
		listen->tp = tp;
	return listen;
}

/**
 * us_tcp_listen_destroy - forget the queues; no request is on them
 * @listen: queues, or NULL
 */
void us_tcp_listen_destroy(struct us_tcp_listen *listen)
{
	if (listen)
		free(listen->accept_queue);
	free(listen);
}

/**
 * us_acceptq_add - let a child wait for accept() (inet_csk_reqsk_queue_add)
 * @listen: its listener's queues
 * @handle: of the child
 *
 * Return: 0, or -ENOMEM.
 */
int us_acceptq_add(struct us_tcp_listen *listen, uint64_t handle)
{
	if (listen->accept_len == listen->accept_size) {
		const uint32_t size = listen->accept_size ? 2 * listen->accept_size : US_ACCEPTQ_FIRST;
		uint64_t *queue = malloc(size * sizeof(*queue));

		if (!queue)
			return -ENOMEM;
		for (uint32_t i = 0; i < listen->accept_len; i++)
			queue[i] = us_acceptq_at(listen, i);
		free(listen->accept_queue);
		listen->accept_queue = queue;
		listen->accept_size = size;
		listen->accept_head = 0;
	}
	listen->accept_queue[(listen->accept_head + listen->accept_len++) % listen->accept_size] = handle;
	return 0;
}

/**
 * us_acceptq_remove - take the child that has waited longest
 * @listen: queues
 *
 * Return: its handle; 0: nobody waits.
 */
uint64_t us_acceptq_remove(struct us_tcp_listen *listen)
{
	const uint64_t handle = us_acceptq_at(listen, 0);

	if (listen->accept_len) {
		listen->accept_head = (listen->accept_head + 1) % listen->accept_size;
		listen->accept_len--;
	}
	return handle;
}

/**
 * us_acceptq_at - who waits
 * @listen: queues
 * @index:  place in the queue, 0: the first
 *
 * Return: a handle; 0: nobody.
 */
uint64_t us_acceptq_at(const struct us_tcp_listen *listen, uint32_t index)
{
	if (index >= listen->accept_len)
		return 0;
	return listen->accept_queue[(listen->accept_head + index) % listen->accept_size];
}

/* Take one connection; whoever it is for is told of it, or gets its text and the end as letters. */
static void us_tcp_accept_one(struct us_tcp_fast *fast, struct us_tcp_sock *tp, bool letters,
			      struct us_tcp_accepted *out)
{
	out->handle = us_tcp_handle(tp);
	out->saddr = tp->saddr;
	out->daddr = tp->daddr;
	out->sport = tp->sport;
	out->dport = tp->dport;
	tp->inbox = letters;
	tp->told = 1;
	out->is_left = !us_tcp_can_send(tp) ||
		       ((tp->receive_queue.len || tp->done) && !us_tcp_post(fast, tp));
}

/**
 * us_tcp_accept - take those who have waited longest, each for a reader (ustack/tcp/inbox.py)
 * @fast:    fast path
 * @listen:  queues
 * @out:     filled
 * @max:     room
 * @letters: what has come for them goes to the inbox, as far as that has room, and what comes
 * @now_us:  the present
 * @genid:   of the routing table
 *
 * Return: how many.
 */
uint32_t us_tcp_accept(struct us_tcp_fast *fast, struct us_tcp_listen *listen,
		       struct us_tcp_accepted *out, uint32_t max, uint32_t letters, uint64_t now_us,
		       uint32_t genid)
{
	uint32_t n = 0;

	us_tcp_begin_call(fast, now_us, genid);
	while (n < max && listen->accept_len) {
		struct us_tcp_sock *tp = us_tcp_sock_at(fast, us_acceptq_remove(listen));

		if (tp)
			us_tcp_accept_one(fast, tp, letters, &out[n++]);
	}
	return n;
}

/**
 * us_reqsk_queue_add - put a request on a listener's SYN queue (inet_csk_reqsk_queue_hash_add)
 * @fast:   fast path
 * @listen: the listener's queues
 * @req:    request whose four-tuple is set; its expires_us is when its timer is due
 *
 * One of a linux-3.10 listener's table has no timer of its own.
 */
void us_reqsk_queue_add(struct us_tcp_fast *fast, struct us_tcp_listen *listen,
			struct us_request_sock *req)
{
	us_flow_table_insert(fast->requests, req);
	req->listen = listen;
	listen->qlen++;
	listen->young++;
	if (!req->in_table)
		us_mod_timer(fast->reqsk_timers, &req->timer, req->expires_us);
}

/**
 * us_reqsk_queue_remove - take a request off its listener's SYN queue, if it is on one
 * @fast: fast path
 * @req:  request
 */
void us_reqsk_queue_remove(struct us_tcp_fast *fast, struct us_request_sock *req)
{
	if (!req->listen)
		return;
	us_flow_table_remove(fast->requests, req);
	us_del_timer(fast->reqsk_timers, &req->timer);
	req->listen->qlen--;
	req->listen->young -= !req->num_timeout;
	req->listen = NULL;
}

/**
 * us_reqsk_lookup - find a half-open connection by its four-tuple
 * @fast:  fast path
 * @saddr: our address
 * @sport: our port
 * @daddr: the peer's address
 * @dport: the peer's port
 *
 * Return: the request, on whichever listener's queue, or NULL.
 */
struct us_request_sock *us_reqsk_lookup(const struct us_tcp_fast *fast, uint32_t saddr,
					uint16_t sport, uint32_t daddr, uint16_t dport)
{
	const struct us_flow flow = {saddr, daddr, sport, dport};

	return us_flow_table_lookup(fast->requests, &flow);
}

/**
 * us_reqsk_list - requests on SYN queues, in no order
 * @fast:   fast path
 * @listen: whose, NULL: everybody's
 * @out:    filled
 * @max:    room
 *
 * Return: how many there are; with more than @max some are left out.
 */
uint32_t us_reqsk_list(const struct us_tcp_fast *fast, const struct us_tcp_listen *listen,
		       struct us_request_sock **out, uint32_t max)
{
	struct us_request_sock *req = NULL;
	uint32_t bucket = 0, n = 0;

	while ((req = us_flow_table_next(fast->requests, &bucket, req)))
		if (!listen || req->listen == listen) {
			if (n < max)
				out[n] = req;
			n++;
		}
	return n;
}

/**
 * us_reqsk_rearm - let a queued request's timer be due when its expires_us says
 * @fast: fast path
 * @req:  request
 */
void us_reqsk_rearm(struct us_tcp_fast *fast, struct us_request_sock *req)
{
	if (req->listen && !req->in_table)
		us_mod_timer(fast->reqsk_timers, &req->timer, req->expires_us);
}

/**
 * us_reqsk_expired - the next request whose SYN-ACK the peer has not answered in time
 * @fast: fast path; its now_us is the present
 *
 * Return: the request, whose timer is no longer armed; or NULL.
 */
struct us_request_sock *us_reqsk_expired(struct us_tcp_fast *fast)
{
	struct us_timer *timer = us_timer_expired(fast->reqsk_timers, fast->now_us);

	if (!timer)
		return NULL;
	return (struct us_request_sock *)(void *)((uint8_t *)timer -
						  offsetof(struct us_request_sock, timer));
}
