/* The fast path of one stack: its tables and what it has to tell Python. */

#include <stdlib.h>
#include <string.h>

#include "tcp_internal.h"

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
	fast->ehash = us_tcp_ehash_create(key16);
	fast->wheel = us_timer_wheel_create(0);
	if (!fast->ehash || !fast->wheel) {
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
		us_tcp_ehash_destroy(fast->ehash);
		us_timer_wheel_destroy(fast->wheel);
	}
	free(fast);
}

/**
 * us_tcp_hash - let segments find a connection
 * @fast: fast path
 * @tp:   connection whose four-tuple is set; it stays where it is until us_tcp_unhash
 */
void us_tcp_hash(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_ehash_insert(fast->ehash, tp);
}

/**
 * us_tcp_unhash - undo us_tcp_hash, if it was done
 * @fast: fast path
 * @tp:   connection
 */
void us_tcp_unhash(struct us_tcp_fast *fast, struct us_tcp_sock *tp)
{
	us_tcp_ehash_remove(fast->ehash, tp);
}

/* Tell Python, once per batch and connection, what it has to do. */
struct us_tcp_event *us_tcp_event(struct us_tcp_fast *fast, struct us_tcp_sock *tp, uint32_t what)
{
	struct us_tcp_event *event = &fast->events[tp->event];

	if (tp->event >= fast->nevents || event->handle != tp->handle) {
		tp->event = (uint8_t)fast->nevents++;
		event = &fast->events[tp->event];
		memset(event, 0, sizeof(*event));
		event->handle = tp->handle;
	}
	event->what |= what;
	return event;
}
