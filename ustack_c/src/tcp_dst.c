/*
 * Routes as TCP sends along them, by our address and the peer's, so that a connection which
 * begins in C finds its own. Python makes them, says what they hold, and lets go of them.
 */

#include <stdlib.h>

#include "tcp_internal.h"

static struct us_tcp_dst **us_tcp_dst_bucket(struct us_tcp_fast *fast, uint32_t saddr,
					     uint32_t daddr)
{
	return &fast->dsts[(daddr ^ daddr >> 10 ^ saddr * 31) % US_TCP_DST_BUCKETS];
}

/**
 * us_tcp_dst_create - a route that us_tcp_dst_lookup() finds
 * @fast:  fast path
 * @saddr: our address
 * @daddr: the peer's
 *
 * Return: the route, of which nothing else is known yet, with one reference; NULL for lack of
 * memory. The newest of several between two addresses is the one that is found.
 */
struct us_tcp_dst *us_tcp_dst_create(struct us_tcp_fast *fast, uint32_t saddr, uint32_t daddr)
{
	struct us_tcp_dst **bucket = us_tcp_dst_bucket(fast, saddr, daddr);
	struct us_tcp_dst *dst = calloc(1, sizeof(*dst));

	if (!dst)
		return NULL;
	dst->fast = fast;
	dst->saddr = saddr;
	dst->daddr = daddr;
	dst->refs = 1;
	dst->next = *bucket;
	*bucket = dst;
	return dst;
}

static void us_tcp_dst_unlink(struct us_tcp_dst *dst)
{
	struct us_tcp_dst **link = us_tcp_dst_bucket(dst->fast, dst->saddr, dst->daddr);

	while (*link != dst)
		link = &(*link)->next;
	*link = dst->next;
	dst->fast = NULL;
}

/**
 * us_tcp_dst_release - Python has no use for a route any more, nor has anybody
 * @dst: route
 *
 * Connections that still have it find that it does not hold.
 */
void us_tcp_dst_release(struct us_tcp_dst *dst)
{
	dst->hh = NULL;
	dst->metrics = NULL;
	if (dst->fast)
		us_tcp_dst_unlink(dst);
	us_tcp_dst_put(dst);
}

/**
 * us_tcp_dst_put - one reference less
 * @dst: route, or NULL
 */
void us_tcp_dst_put(struct us_tcp_dst *dst)
{
	if (dst && !--dst->refs)
		free(dst);
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

/**
 * us_tcp_dst_set_metrics - what earlier connections have learnt about a peer is here now
 * @fast:    fast path
 * @saddr:   our address
 * @daddr:   the peer's
 * @metrics: what is known, NULL: nothing any more
 */
void us_tcp_dst_set_metrics(struct us_tcp_fast *fast, uint32_t saddr, uint32_t daddr,
			    struct us_tcp_metrics *metrics)
{
	struct us_tcp_dst *dst = *us_tcp_dst_bucket(fast, saddr, daddr);

	for (; dst; dst = dst->next)
		if (dst->daddr == daddr && dst->saddr == saddr)
			dst->metrics = metrics;
}

/* The fast path goes; whoever has a route keeps it as long as he likes. */
void us_tcp_dst_forget_all(struct us_tcp_fast *fast)
{
	for (uint32_t i = 0; i < US_TCP_DST_BUCKETS; i++)
		while (fast->dsts[i])
			us_tcp_dst_unlink(fast->dsts[i]);
}
