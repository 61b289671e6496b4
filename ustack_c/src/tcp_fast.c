/* The fast path of one stack: its tables and what it has to tell Python. */

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "arena.h"
#include "tcp_internal.h"

#define US_PLACE_BYTES 64	/* what slab objects of this size are aligned to */

/* The four-tuples lie in their objects as struct us_flow has them. */
#define US_TABLE_OF(type, first, key16) \
	us_flow_table_create(key16, offsetof(type, first), offsetof(type, hash_next))
#define US_FLOW_IS_AT(type, first, peer, own_port, peer_port)                                 \
	_Static_assert(offsetof(type, peer) == offsetof(type, first) + 4 &&                   \
			       offsetof(type, own_port) == offsetof(type, first) + 8 &&       \
			       offsetof(type, peer_port) == offsetof(type, first) + 10 &&     \
			       sizeof(struct us_flow) == 12, "a four-tuple out of order")

US_FLOW_IS_AT(struct us_tcp_sock, saddr, daddr, sport, dport);
US_FLOW_IS_AT(struct us_request_sock, loc_addr, rmt_addr, loc_port, rmt_port);
US_FLOW_IS_AT(struct us_timewait_sock, saddr, daddr, sport, dport);

/**
 * us_tcp_fast_create - a fast path that knows no connection
 * @mem:   arena that the control blocks and the rings lie in
 * @key16: secret key of the hash table
 *
 * Return: the fast path, or NULL for lack of memory.
 */
struct us_tcp_fast *us_tcp_fast_create(struct us_mem *mem, const uint8_t *key16)
{
	struct us_tcp_fast *fast = calloc(1, sizeof(*fast));

	if (!fast)
		return NULL;
	fast->mem = mem;
	for (int i = 0; i < 3; i++)
		fast->mem_limits[i] = UINT32_MAX;
	fast->ehash = US_TABLE_OF(struct us_tcp_sock, saddr, key16);
	fast->wheel = us_timer_wheel_create(0);
	fast->requests = US_TABLE_OF(struct us_request_sock, loc_addr, key16);
	fast->reqsk_timers = us_timer_wheel_create(0);
	fast->timewaits = US_TABLE_OF(struct us_timewait_sock, saddr, key16);
	fast->tw_timers = us_timer_wheel_create(0);
	if (!fast->ehash || !fast->wheel || !fast->requests || !fast->reqsk_timers ||
	    !fast->timewaits || !fast->tw_timers) {
		us_tcp_fast_destroy(fast);
		return NULL;
	}
	return fast;
}

/**
 * us_tcp_fast_destroy - forget all connections; their memory is not touched
 * @fast: fast path, or NULL
 */
void us_tcp_fast_destroy(struct us_tcp_fast *fast)
{
	if (fast) {
		us_flow_table_destroy(fast->ehash);
		us_timer_wheel_destroy(fast->wheel);
		us_flow_table_destroy(fast->requests);
		us_timer_wheel_destroy(fast->reqsk_timers);
		us_flow_table_destroy(fast->timewaits);
		us_timer_wheel_destroy(fast->tw_timers);
		free(fast->shares);
	}
	free(fast);
}

/**
 * us_tcp_receive_queue - the address of a connection's receive queue, as Python needs it
 * @tp: connection
 *
 * Return: what waits to be read.
 */
struct us_bq *us_tcp_receive_queue(struct us_tcp_sock *tp)
{
	return &tp->receive_queue;
}

/**
 * us_tcp_write_queue - the address of a connection's send queue
 * @tp: connection
 *
 * Return: bytes from SND.UNA on.
 */
struct us_bq *us_tcp_write_queue(struct us_tcp_sock *tp)
{
	return &tp->write_queue;
}

/**
 * us_tcp_memory_allocated - what counts against tcp_mem
 * @fast: fast path
 *
 * Return: pages of all send and receive queues, out-of-order queues among them.
 */
uint32_t us_tcp_memory_allocated(const struct us_tcp_fast *fast)
{
	return fast->mem->queue_pages + fast->ofo_pages;
}

/**
 * us_tcp_memory_is_low - whether nobody need ask for memory (below tcp_mem's first limit)
 * @fast: fast path
 * @more: bytes that somebody wants to keep
 *
 * Return: 1 if with them all data takes no more than the first limit, and there is no memory
 * pressure to be ended; else 0: Python looks (__sk_mem_raise_allocated).
 */
int us_tcp_memory_is_low(const struct us_tcp_fast *fast, uint32_t more)
{
	const uint64_t pages = ((uint64_t)more + US_PAGE_SIZE - 1) / US_PAGE_SIZE;

	return !fast->memory_pressure &&
	       us_tcp_memory_allocated(fast) + pages <= fast->mem_limits[0];
}

/*
 * Whether memory abounds: nobody need ask whether he may have some. If not, all is Python's
 * (sk_mem_schedule in ustack/tcp/mem.py).
 */
bool us_tcp_memory_abounds(const struct us_tcp_fast *fast)
{
	return fast->mem->free_pages >= fast->mem->min_free + US_PAGES_AT_LEAST &&
	       !fast->memory_pressure &&
	       us_tcp_memory_allocated(fast) <= fast->mem_limits[1];
}

/**
 * us_tcp_hash - let segments find a connection
 * @fast: fast path
 * @tp:   connection whose four-tuple is set; it stays where it is until us_tcp_unhash
 */
void us_tcp_hash(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (tp->is_hashed)
		return;
	us_flow_table_insert(fast->ehash, tp);
	tp->is_hashed = 1;
}

/**
 * us_tcp_unhash - undo us_tcp_hash, if it was done
 * @fast: fast path
 * @tp:   connection
 */
void us_tcp_unhash(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	if (!tp->is_hashed)
		return;
	us_flow_table_remove(fast->ehash, tp);
	tp->is_hashed = 0;
}

/**
 * us_tcp_lookup - find a connection by its four-tuple
 * @fast:  fast path
 * @saddr: our address
 * @sport: our port
 * @daddr: the peer's address
 * @dport: the peer's port
 *
 * Return: its handle, or 0.
 */
uint64_t us_tcp_lookup(const struct us_tcp_fast *fast, uint32_t saddr, uint16_t sport,
		       uint32_t daddr, uint16_t dport)
{
	const struct us_flow flow = {saddr, daddr, sport, dport};
	const struct us_tcp_sock *tp = us_flow_table_lookup(fast->ehash, &flow);

	return tp ? us_tcp_handle(tp) : 0;
}

/**
 * us_tcp_hashed - how many connections there are
 * @fast: fast path
 */
uint32_t us_tcp_hashed(const struct us_tcp_fast *fast)
{
	return us_flow_table_count(fast->ehash);
}

/**
 * us_tcp_list - the handles of all connections, in no order
 * @fast:    fast path
 * @handles: filled
 * @max:     room
 *
 * Return: how many were filled in.
 */
uint32_t us_tcp_list(const struct us_tcp_fast *fast, uint64_t *handles, uint32_t max)
{
	struct us_tcp_sock *tp = NULL;
	uint32_t bucket = 0, n = 0;

	while (n < max && (tp = us_flow_table_next(fast->ehash, &bucket, tp)))
		handles[n++] = us_tcp_handle(tp);
	return n;
}

/**
 * us_tcp_place - the number of a control block's place, which is free again with the block
 * @fast: fast path
 * @tp:   control block, which begins on a cache line of the arena
 */
uint32_t us_tcp_place(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp)
{
	return (uint32_t)((uint64_t)((const uint8_t *)tp - fast->mem->base) / US_PLACE_BYTES);
}

/* How many places there are. */
size_t us_tcp_places(const struct us_tcp_fast *fast)
{
	return fast->mem->size / US_PLACE_BYTES;
}

/**
 * us_tcp_handle - what the rest of the stack knows a control block by
 * @tp: control block
 */
uint64_t us_tcp_handle(const struct us_tcp_sock *tp)
{
	return (uint64_t)tp->generation << 32 | tp->place;
}

/**
 * us_tcp_sock_at - undo us_tcp_handle
 * @fast:   fast path
 * @handle: of a control block
 *
 * Return: the control block; NULL if it was given back.
 */
struct us_tcp_sock *us_tcp_sock_at(const struct us_tcp_fast *fast, uint64_t handle)
{
	const uint64_t offset = (handle & UINT32_MAX) * US_PLACE_BYTES;
	const struct us_page *page = us_page_head(fast->mem, offset);
	struct us_tcp_sock *tp;

	if (!page || page->state != US_PAGE_SLAB)
		return NULL;
	tp = (struct us_tcp_sock *)(fast->mem->base + offset);
	return us_tcp_handle(tp) == handle ? tp : NULL;
}

/* Tell Python, once per batch and connection, what it has to do. */
struct us_tcp_event *us_tcp_event(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what)
{
	struct us_tcp_event *event = &fast->events[tp->event];

	if (tp->event >= fast->nevents || event->handle != us_tcp_handle(tp)) {
		tp->event = (uint8_t)fast->nevents++;
		event = &fast->events[tp->event];
		memset(event, 0, sizeof(*event));
		event->handle = us_tcp_handle(tp);
	}
	event->what |= what;
	return event;
}

/* Whether Python already has something of @what to do for a connection. */
bool us_tcp_has_event(const struct us_tcp_fast *fast, const struct us_tcp_sock *tp, uint32_t what)
{
	const struct us_tcp_event *event = &fast->events[tp->event];

	return tp->event < fast->nevents && event->handle == us_tcp_handle(tp) && event->what & what;
}
