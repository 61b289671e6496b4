#ifndef USTACK_FLOW_TABLE_H
#define USTACK_FLOW_TABLE_H

#include <stddef.h>
#include <stdint.h>

/* A four-tuple as connections, requests and mini-sockets hold it, our own side first. */
struct us_flow {
	uint32_t saddr;
	uint32_t daddr;
	uint16_t sport;
	uint16_t dport;
};

/* What has such a four-tuple, wherever it stands in there, by a keyed hash. */
struct us_flow_table;

struct us_flow_table *us_flow_table_create(const uint8_t *key16, size_t flow_at, size_t next_at);
void us_flow_table_destroy(struct us_flow_table *table);
void us_flow_table_insert(struct us_flow_table *table, void *object);
void us_flow_table_remove(struct us_flow_table *table, void *object);
void *us_flow_table_lookup(const struct us_flow_table *table, const struct us_flow *flow);
uint32_t us_flow_table_count(const struct us_flow_table *table);
void *us_flow_table_next(const struct us_flow_table *table, uint32_t *bucket, void *object);

#endif
