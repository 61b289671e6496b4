/* Connections by four-tuple: a keyed hash with chains through the control blocks. */

#include <stdlib.h>
#include <string.h>

#include "siphash.h"
#include "tcp_ehash.h"
#include "tcp_fast.h"

#define US_EHASH_FIRST_BUCKETS 256

struct us_tcp_ehash {
	struct us_tcp_sock **buckets;
	uint32_t mask;
	uint32_t count;
	uint8_t key[16];
};

static uint32_t us_ehash_hash(const struct us_tcp_ehash *ehash, uint32_t saddr, uint32_t daddr,
			      uint16_t sport, uint16_t dport)
{
	return (uint32_t)us_siphash_2u64(ehash->key, (uint64_t)saddr << 32 | daddr,
					 (uint64_t)sport << 16 | dport);
}

struct us_tcp_ehash *us_tcp_ehash_create(const uint8_t *key16)
{
	struct us_tcp_ehash *ehash = calloc(1, sizeof(*ehash));

	if (!ehash)
		return NULL;
	ehash->buckets = calloc(US_EHASH_FIRST_BUCKETS, sizeof(*ehash->buckets));
	if (!ehash->buckets) {
		free(ehash);
		return NULL;
	}
	ehash->mask = US_EHASH_FIRST_BUCKETS - 1;
	memcpy(ehash->key, key16, sizeof(ehash->key));
	return ehash;
}

void us_tcp_ehash_destroy(struct us_tcp_ehash *ehash)
{
	if (ehash)
		free(ehash->buckets);
	free(ehash);
}

static uint32_t us_ehash_hash_of(const struct us_tcp_ehash *ehash, const struct us_tcp_sock *tp)
{
	return us_ehash_hash(ehash, tp->saddr, tp->daddr, tp->sport, tp->dport);
}

static void us_ehash_link(struct us_tcp_sock **bucket, struct us_tcp_sock *tp)
{
	tp->hash_next = *bucket;
	*bucket = tp;
}

/* Double the buckets; without memory for them the chains grow longer. */
static void us_ehash_grow(struct us_tcp_ehash *ehash)
{
	const uint32_t mask = ehash->mask << 1 | 1;
	struct us_tcp_sock **buckets = calloc((size_t)mask + 1, sizeof(*buckets));

	if (!buckets)
		return;
	for (uint32_t i = 0; i <= ehash->mask; i++) {
		struct us_tcp_sock *tp = ehash->buckets[i];

		while (tp) {
			struct us_tcp_sock *next = tp->hash_next;

			us_ehash_link(&buckets[us_ehash_hash_of(ehash, tp) & mask], tp);
			tp = next;
		}
	}
	free(ehash->buckets);
	ehash->buckets = buckets;
	ehash->mask = mask;
}

void us_tcp_ehash_insert(struct us_tcp_ehash *ehash, struct us_tcp_sock *tp)
{
	if (tp->is_hashed)
		return;
	if (ehash->count > ehash->mask && ehash->mask < UINT32_MAX >> 1)
		us_ehash_grow(ehash);
	us_ehash_link(&ehash->buckets[us_ehash_hash_of(ehash, tp) & ehash->mask], tp);
	tp->is_hashed = 1;
	ehash->count++;
}

void us_tcp_ehash_remove(struct us_tcp_ehash *ehash, struct us_tcp_sock *tp)
{
	struct us_tcp_sock **link;

	if (!tp->is_hashed)
		return;
	link = &ehash->buckets[us_ehash_hash_of(ehash, tp) & ehash->mask];
	while (*link != tp)
		link = &(*link)->hash_next;
	*link = tp->hash_next;
	tp->hash_next = NULL;
	tp->is_hashed = 0;
	ehash->count--;
}

struct us_tcp_sock *us_tcp_ehash_lookup(const struct us_tcp_ehash *ehash, uint32_t saddr,
					uint32_t daddr, uint16_t sport, uint16_t dport)
{
	const uint32_t hash = us_ehash_hash(ehash, saddr, daddr, sport, dport);
	struct us_tcp_sock *tp = ehash->buckets[hash & ehash->mask];

	while (tp && (tp->saddr != saddr || tp->daddr != daddr || tp->sport != sport ||
		      tp->dport != dport))
		tp = tp->hash_next;
	return tp;
}

uint32_t us_tcp_ehash_count(const struct us_tcp_ehash *ehash)
{
	return ehash->count;
}

/* The handles of all connections, @max at most; return how many. */
uint32_t us_tcp_ehash_list(const struct us_tcp_ehash *ehash, uint64_t *handles, uint32_t max)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i <= ehash->mask; i++)
		for (const struct us_tcp_sock *tp = ehash->buckets[i]; tp && n < max;
		     tp = tp->hash_next)
			handles[n++] = us_tcp_handle(tp);
	return n;
}
