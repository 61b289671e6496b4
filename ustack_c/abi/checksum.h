#ifndef USTACK_ABI_CHECKSUM_H
#define USTACK_ABI_CHECKSUM_H

#include "types.h"

/*
 * The Internet checksum (RFC 1071). A "sum" is the ones-complement sum of big-endian
 * 16-bit words, in host order, folded to 16 bits by every function that returns one; a
 * "checksum" is its complement, as it stands in a header. Addresses are in host order.
 */
uint32_t us_csum_partial(const void *buf, uint64_t len, uint32_t sum);
uint32_t us_csum_block_add(uint32_t sum, uint32_t part, uint64_t offset);
uint16_t us_csum_fold(uint32_t sum);
uint32_t us_csum_tcpudp_nofold(uint32_t saddr, uint32_t daddr, uint32_t len, uint8_t proto, uint32_t sum);
uint16_t us_csum_tcpudp_magic(uint32_t saddr, uint32_t daddr, uint32_t len, uint8_t proto, uint32_t sum);
uint16_t us_ip_fast_csum(const void *iph, uint32_t bytes);

#endif
