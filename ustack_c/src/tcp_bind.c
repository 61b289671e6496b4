/*
 * How many connections share a local port, by kind (struct inet_bind_bucket's owners that came
 * by a listener or connect()). What a kind is, and whom the port may then be given to, is
 * Python's (ustack/tcp/ports.py); connections come and go here, too.
 */

#include <stdlib.h>
#include <string.h>

#include "tcp_internal.h"

#define US_BIND_SHARES_FIRST 64

/* Double the table and put what is new on the list of free places; false: no memory. */
static bool us_bind_shares_grow(struct us_tcp_fast *fast)
{
	const uint32_t old = fast->nshares;
	const uint32_t count = old ? 2 * old : US_BIND_SHARES_FIRST;
	struct us_bind_share *shares = realloc(fast->shares, count * sizeof(*shares));

	if (!shares)
		return false;
	memset(shares + old, 0, (count - old) * sizeof(*shares));
	fast->shares = shares;
	fast->nshares = count;
	for (uint32_t i = count - 1; i >= (old ? old : 1); i--) {	/* 0 is nobody's number */
		shares[i].next = fast->free_shares;
		fast->free_shares = i;
	}
	return true;
}

/**
 * us_bind_share_alloc - a counter for one more kind of connections on a port
 * @fast: fast path
 * @port: local port
 *
 * Return: its number, the count is 0; or 0 for lack of memory.
 */
uint32_t us_bind_share_alloc(struct us_tcp_fast *fast, uint16_t port)
{
	uint32_t index;

	if (!fast->free_shares && !us_bind_shares_grow(fast))
		return 0;
	index = fast->free_shares;
	fast->free_shares = fast->shares[index].next;
	memset(&fast->shares[index], 0, sizeof(fast->shares[index]));
	fast->shares[index].port = port;
	return index;
}

/**
 * us_bind_share_free - forget a counter; nobody shares by it, and it is not on the list of
 * those that us_bind_share_emptied() tells
 * @fast:  fast path
 * @index: its number
 */
void us_bind_share_free(struct us_tcp_fast *fast, uint32_t index)
{
	fast->shares[index].next = fast->free_shares;
	fast->free_shares = index;
}

/**
 * us_bind_share_get - one connection more
 * @fast:  fast path
 * @index: of the counter
 */
void us_bind_share_get(struct us_tcp_fast *fast, uint32_t index)
{
	fast->shares[index].count++;
}

/**
 * us_bind_share_put - one connection less; the last one is for Python to know
 * @fast:  fast path
 * @index: of the counter
 */
void us_bind_share_put(struct us_tcp_fast *fast, uint32_t index)
{
	struct us_bind_share *share = &fast->shares[index];

	if (--share->count || share->is_emptied)
		return;
	share->is_emptied = 1;
	share->next = fast->emptied_shares;
	fast->emptied_shares = index;
}

/**
 * us_bind_share_emptied - a counter that has come down to 0 since this was last asked
 * @fast: fast path
 *
 * Return: its number, though connections may share by it again; 0: there is none.
 */
uint32_t us_bind_share_emptied(struct us_tcp_fast *fast)
{
	const uint32_t index = fast->emptied_shares;

	if (index) {
		fast->emptied_shares = fast->shares[index].next;
		fast->shares[index].is_emptied = 0;
	}
	return index;
}
