/*
 * A hash by four-tuple, keyed, with chains through its objects. It grows and shrinks with what
 * it holds (inet_hashinfo, which Linux makes large at start).
 */

#include <stdlib.h>
#include <string.h>

#include "flow_table.h"
#include "siphash.h"

#define US_FIRST_BUCKETS 64

struct us_flow_table {
	void **buckets;
	uint32_t mask;
	uint32_t count;
	size_t flow_at;
	size_t next_at;
	uint8_t key[16];
};

static struct us_flow us_flow_of(const struct us_flow_table *table, const void *object)
{
	struct us_flow flow;

	memcpy(&flow, (const uint8_t *)object + table->flow_at, sizeof(flow));
	return flow;
}

static void **us_next_of(const struct us_flow_table *table, void *object)
{
	return (void **)(void *)((uint8_t *)object + table->next_at);
}

static void **us_bucket(const struct us_flow_table *table, const struct us_flow *flow)
{
	const uint64_t digest = us_siphash_2u64(table->key,
						(uint64_t)flow->saddr << 32 | flow->daddr,
						(uint64_t)flow->sport << 16 | flow->dport);

	return &table->buckets[(uint32_t)digest & table->mask];
}

static void us_link(const struct us_flow_table *table, void *object)
{
	const struct us_flow flow = us_flow_of(table, object);
	void **bucket = us_bucket(table, &flow);

	*us_next_of(table, object) = *bucket;
	*bucket = object;
}

/**
 * us_flow_table_create - an empty table
 * @key16:   secret key
 * @flow_at: where in an object its struct us_flow is
 * @next_at: where in it there is a pointer for the table's use
 *
 * Return: the table, or NULL for lack of memory.
 */
struct us_flow_table *us_flow_table_create(const uint8_t *key16, size_t flow_at, size_t next_at)
{
	struct us_flow_table *table = calloc(1, sizeof(*table));

	if (!table)
		return NULL;
	table->buckets = calloc(US_FIRST_BUCKETS, sizeof(*table->buckets));
	if (!table->buckets) {
		free(table);
		return NULL;
	}
	table->mask = US_FIRST_BUCKETS - 1;
	table->flow_at = flow_at;
	table->next_at = next_at;
	memcpy(table->key, key16, sizeof(table->key));
	return table;
}

/**
 * us_flow_table_destroy - forget the objects, which are not touched
 * @table: table, or NULL
 */
void us_flow_table_destroy(struct us_flow_table *table)
{
	if (table)
		free(table->buckets);
	free(table);
}

/* Have @count buckets; without memory for them the chains stay as long as they are. */
static void us_resize(struct us_flow_table *table, uint32_t count)
{
	void **buckets = calloc(count, sizeof(*buckets));
	void **old = table->buckets;
	const uint32_t mask = table->mask;

	if (!buckets)
		return;
	table->buckets = buckets;
	table->mask = count - 1;
	for (uint32_t i = 0; i <= mask; i++) {
		void *object = old[i];

		while (object) {
			void *next = *us_next_of(table, object);

			us_link(table, object);
			object = next;
		}
	}
	free(old);
}

/**
 * us_flow_table_insert - let an object be found
 * @table:  table
 * @object: is in no table, and no other in this one has its four-tuple
 */
void us_flow_table_insert(struct us_flow_table *table, void *object)
{
	if (table->count > table->mask && table->mask < UINT32_MAX >> 2)
		us_resize(table, 2 * (table->mask + 1));
	us_link(table, object);
	table->count++;
}

/**
 * us_flow_table_remove - undo us_flow_table_insert
 * @table:  table
 * @object: is in it
 */
void us_flow_table_remove(struct us_flow_table *table, void *object)
{
	const struct us_flow flow = us_flow_of(table, object);
	void **link = us_bucket(table, &flow);

	while (*link != object)
		link = us_next_of(table, *link);
	*link = *us_next_of(table, object);
	*us_next_of(table, object) = NULL;
	table->count--;
	if (table->count < table->mask >> 3 && table->mask >= US_FIRST_BUCKETS)
		us_resize(table, (table->mask + 1) / 2);
}

/**
 * us_flow_table_lookup - find an object by its four-tuple
 * @table: table
 * @flow:  four-tuple
 *
 * Return: the object, or NULL.
 */
void *us_flow_table_lookup(const struct us_flow_table *table, const struct us_flow *flow)
{
	void *object = *us_bucket(table, flow);

	while (object && memcmp((const uint8_t *)object + table->flow_at, flow, sizeof(*flow)))
		object = *us_next_of(table, object);
	return object;
}

/**
 * us_flow_table_count - how many objects there are
 * @table: table
 */
uint32_t us_flow_table_count(const struct us_flow_table *table)
{
	return table->count;
}

/**
 * us_flow_table_next - go through all objects, in no order; the table must not change meanwhile
 * @table:  table
 * @bucket: 0 at first, the table's place afterwards
 * @object: the last one, NULL at first
 *
 * Return: the next one, or NULL.
 */
void *us_flow_table_next(const struct us_flow_table *table, uint32_t *bucket, void *object)
{
	if (object)
		object = *us_next_of(table, object);
	while (!object && *bucket <= table->mask)
		object = table->buckets[(*bucket)++];
	return object;
}
