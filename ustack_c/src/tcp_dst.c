/*
 * Routes as TCP sends along them, by our address and the peer's, so that a connection which
 * begins in C finds its own. Python makes them, and says what they hold and how long.
 */

#include "tcp_internal.h"

static struct us_tcp_dst **us_tcp_dst_bucket(struct us_tcp_fast *fast, uint32_t saddr,
					     uint32_t daddr)
{
	return &fast->dsts[(daddr ^ daddr >> 10 ^ saddr * 31) % US_TCP_DST_BUCKETS];
}

/**
 * us_tcp_dst_link - let us_tcp_dst_lookup() find a route
 * @fast: fast path
 * @dst:  route; the newest of several between two addresses is the one that is found
 */
void us_tcp_dst_link(struct us_tcp_fast *fast, struct us_tcp_dst *dst)
{
	struct us_tcp_dst **bucket = us_tcp_dst_bucket(fast, dst->saddr, dst->daddr);

	if (dst->is_linked)
		return;
	dst->next = *bucket;
	*bucket = dst;
	dst->is_linked = 1;
}

/**
 * us_tcp_dst_unlink - undo us_tcp_dst_link, if it was done
 * @fast: fast path
 * @dst:  route
 */
void us_tcp_dst_unlink(struct us_tcp_fast *fast, struct us_tcp_dst *dst)
{
	struct us_tcp_dst **link = us_tcp_dst_bucket(fast, dst->saddr, dst->daddr);

	if (!dst->is_linked)
		return;
	while (*link != dst)
		link = &(*link)->next;
	*link = dst->next;
	dst->is_linked = 0;
}

/**
 * us_tcp_dst_lookup - find the route to a peer
 * @fast:  fast path
 * @saddr: our address
 * @daddr: the peer's
 *
 * Return: the route, or NULL.
 */
struct us_tcp_dst *us_tcp_dst_lookup(struct us_tcp_fast *fast, uint32_t saddr, uint32_t daddr)
{
	struct us_tcp_dst *dst = *us_tcp_dst_bucket(fast, saddr, daddr);

	while (dst && (dst->daddr != daddr || dst->saddr != saddr))
		dst = dst->next;
	return dst;
}
