#ifndef USTACK_TCP_EHASH_H
#define USTACK_TCP_EHASH_H

#include "tcp.h"

/* Hosts' names in the key are ours first: saddr and sport are the connection's own. */
struct us_tcp_ehash;

struct us_tcp_ehash *us_tcp_ehash_create(const uint8_t *key16);
void us_tcp_ehash_destroy(struct us_tcp_ehash *ehash);
void us_tcp_ehash_insert(struct us_tcp_ehash *ehash, struct us_tcp_sock *tp);
void us_tcp_ehash_remove(struct us_tcp_ehash *ehash, struct us_tcp_sock *tp);
uint32_t us_tcp_ehash_count(const struct us_tcp_ehash *ehash);
uint32_t us_tcp_ehash_list(const struct us_tcp_ehash *ehash, uint64_t *handles, uint32_t max);
struct us_tcp_sock *us_tcp_ehash_lookup(const struct us_tcp_ehash *ehash, uint32_t saddr,
					uint32_t daddr, uint16_t sport, uint16_t dport);

#endif
